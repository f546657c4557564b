# peerdist ports of a host with the role server, client and vesc. Run as administrator; running it again replaces the rules.
# Fill the lists, for example @('10.0.5.10', '10.42.0.0/24'). Rules of an empty list are left out.
$PeerdistServer = @()  # addresses of the server
$PeerdistClients = @()  # subnets of every office
$PeerdistCentralOffice = @()  # subnets of the Central Office
$PeerdistOwnOffice = @()  # subnets of this host's office
$PeerdistParentOffice = @()  # subnets of the parent office; empty in the Central Office
$PeerdistChildOffices = @()  # subnets of all child offices; empty where there are none
$PeerdistBroadcast = @()  # broadcast addresses of this host's subnets
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
Add-PeerdistRule 'peerdist table 2 row 7: server to client 34324 in' Inbound 34324 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 2 row 8: server to client 34325 in' Inbound 34325 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 2 row 9: server to client 34335 in' Inbound 34335 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 2 row 10: server to client 34337 in' Inbound 34337 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 2 row 11: server to client 34343 in' Inbound 34343 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 2 row 12: server to client 34345 in' Inbound 34345 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 3 row 13: client to client 34324 in' Inbound 34324 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 14: client to client 34325 in' Inbound 34325 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 15: client to client 34335 in' Inbound 34335 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 16: client to client 34337 in' Inbound 34337 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 17: client to client 34343 in' Inbound 34343 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 18: client to client 34345 in' Inbound 34345 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 4 row 19: client to client 34329 in' Inbound 34329 ($PeerdistOwnOffice) @('Any')
Add-PeerdistRule 'peerdist table 5 row 20: server to client 34760 in' Inbound 34760 ($PeerdistServer) @($PeerdistCentralOffice)
Add-PeerdistRule 'peerdist table 6 row 21: client to client 34760 in' Inbound 34760 ($PeerdistOwnOffice) @('Any')
Add-PeerdistRule 'peerdist table 6 row 22: client to client 34750 in' Inbound 34750 ($PeerdistParentOffice) @('Any')
Add-PeerdistRule 'peerdist table 7 row 23: client to server 34545 in' Inbound 34545 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 7 row 24: client to client 34546 in' Inbound 34546 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 8 row 25: vesc to server 34323 in' Inbound 34323 ($PeerdistVesc) @('Any')
Add-PeerdistRule 'peerdist table 8 row 26: server to vesc 34320 in' Inbound 34320 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 1 row 1: client to server 34322 out' Outbound 34322 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 1 row 2: client to server 34323 out' Outbound 34323 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 1 row 3: client to server 34331 out' Outbound 34331 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 1 row 4: client to server 34333 out' Outbound 34333 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 1 row 5: client to server 34339 out' Outbound 34339 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 1 row 6: client to server 34341 out' Outbound 34341 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 2 row 7: server to client 34324 out' Outbound 34324 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 8: server to client 34325 out' Outbound 34325 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 9: server to client 34335 out' Outbound 34335 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 10: server to client 34337 out' Outbound 34337 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 11: server to client 34343 out' Outbound 34343 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 2 row 12: server to client 34345 out' Outbound 34345 ($PeerdistClients) @('Any')
Add-PeerdistRule 'peerdist table 3 row 13: client to client 34324 out' Outbound 34324 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 14: client to client 34325 out' Outbound 34325 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 15: client to client 34335 out' Outbound 34335 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 16: client to client 34337 out' Outbound 34337 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 17: client to client 34343 out' Outbound 34343 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 3 row 18: client to client 34345 out' Outbound 34345 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 4 row 19: client to client 34329 out' Outbound 34329 ($PeerdistBroadcast) @('Any')
Add-PeerdistRule 'peerdist table 5 row 20: server to client 34760 out' Outbound 34760 ($PeerdistCentralOffice) @('Any')
Add-PeerdistRule 'peerdist table 6 row 21: client to client 34760 out' Outbound 34760 ($PeerdistOwnOffice) @('Any')
Add-PeerdistRule 'peerdist table 6 row 22: client to client 34750 out' Outbound 34750 ($PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 7 row 23: client to server 34545 out' Outbound 34545 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 7 row 24: client to client 34546 out' Outbound 34546 ($PeerdistOwnOffice + $PeerdistParentOffice + $PeerdistChildOffices) @('Any')
Add-PeerdistRule 'peerdist table 8 row 25: vesc to server 34323 out' Outbound 34323 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 8 row 26: server to vesc 34320 out' Outbound 34320 ($PeerdistVesc) @('Any')
