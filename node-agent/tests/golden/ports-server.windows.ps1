# peerdist ports of a host with the role server. Run as administrator; running it again replaces the rules.
# Fill the lists, for example @('10.0.5.10', '10.42.0.0/24'). Rules of an empty list are left out.
$PeerdistClients = @()  # subnets of every office
$PeerdistCentralOffice = @()  # subnets of the Central Office
$PeerdistVesc = @()  # addresses of the enterprise systems connectors; empty without one

function Add-PeerdistRule($Name, $Direction, $Port, $Peers, $Own) {
    if ($Peers.Count -eq 0 -or $Own.Count -eq 0) { return }
    $ports = if ($Direction -eq 'Inbound') { @{ LocalPort = $Port } } else { @{ RemotePort = $Port } }
    New-NetFirewallRule -Group 'peerdist' -DisplayName $Name -Direction $Direction -Protocol UDP @ports `
        -RemoteAddress $Peers -LocalAddress $Own -Profile Any -Action Allow | Out-Null
}

Remove-NetFirewallRule -Group 'peerdist' -ErrorAction SilentlyContinue
Add-PeerdistRule 'peerdist table 1 row 1: client to server 34322 in' Inbound 34322 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 1 row 2: client to server 34323 in' Inbound 34323 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 1 row 3: client to server 34331 in' Inbound 34331 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 1 row 4: client to server 34333 in' Inbound 34333 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 1 row 5: client to server 34339 in' Inbound 34339 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 1 row 6: client to server 34341 in' Inbound 34341 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 7 row 23: client to server 34545 in' Inbound 34545 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 8 row 25: vesc to server 34323 in' Inbound 34323 ($PeerdistVesc) @('Any')
Add-PeerdistRule 'peerdist table 2 row 7: server to client 34324 out' Outbound 34324 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 8: server to client 34325 out' Outbound 34325 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 9: server to client 34335 out' Outbound 34335 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 10: server to client 34337 out' Outbound 34337 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 11: server to client 34343 out' Outbound 34343 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 12: server to client 34345 out' Outbound 34345 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 5 row 20: server to client 34760 out' Outbound 34760 ($PeerdistCentralOffice) @('Any')
Add-PeerdistRule 'peerdist table 8 row 26: server to vesc 34320 out' Outbound 34320 ($PeerdistVesc) @('Any')
