#!/bin/sh
# peerdist ports of a host with the role vesc. Stateless: replies are rows of their own.
# Fill the sets with: ipset add SET ADDRESS/PREFIX. Running the script again replaces the chains.
set -eu

ipset create -exist peerdist_server hash:net  # addresses of the server

iptables -N PEERDIST-INPUT 2>/dev/null || iptables -F PEERDIST-INPUT
iptables -A PEERDIST-INPUT -i lo -j RETURN
iptables -A PEERDIST-INPUT -p udp --dport 34320 -m set --match-set peerdist_server src -m comment --comment "table 8 row 26: server to vesc 34320" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp -m multiport --dports 34320 -j DROP
iptables -C INPUT -j PEERDIST-INPUT 2>/dev/null || iptables -I INPUT -j PEERDIST-INPUT

iptables -N PEERDIST-OUTPUT 2>/dev/null || iptables -F PEERDIST-OUTPUT
iptables -A PEERDIST-OUTPUT -o lo -j RETURN
iptables -A PEERDIST-OUTPUT -p udp --dport 34323 -m set --match-set peerdist_server dst -m comment --comment "table 8 row 25: vesc to server 34323" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp -m multiport --sports 34320 -j DROP
iptables -C OUTPUT -j PEERDIST-OUTPUT 2>/dev/null || iptables -I OUTPUT -j PEERDIST-OUTPUT
