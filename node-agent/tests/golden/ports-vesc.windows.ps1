# peerdist ports of a host with the role vesc. Run as administrator; running it again replaces the rules.
# Fill the lists, for example @('10.0.5.10', '10.42.0.0/24'). Rules of an empty list are left out.
$PeerdistServer = @()  # addresses of the server

function Add-PeerdistRule($Name, $Direction, $Port, $Peers, $Own) {
    if ($Peers.Count -eq 0 -or $Own.Count -eq 0) { return }
    $ports = if ($Direction -eq 'Inbound') { @{ LocalPort = $Port } } else { @{ RemotePort = $Port } }
    New-NetFirewallRule -Group 'peerdist' -DisplayName $Name -Direction $Direction -Protocol UDP @ports `
        -RemoteAddress $Peers -LocalAddress $Own -Profile Any -Action Allow | Out-Null
}

Remove-NetFirewallRule -Group 'peerdist' -ErrorAction SilentlyContinue
Add-PeerdistRule 'peerdist table 8 row 26: server to vesc 34320 in' Inbound 34320 ($PeerdistServer) @('Any')
Add-PeerdistRule 'peerdist table 8 row 25: vesc to server 34323 out' Outbound 34323 ($PeerdistServer) @('Any')
