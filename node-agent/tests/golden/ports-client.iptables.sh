#!/bin/sh
# peerdist ports of a host with the role client. Stateless: replies are rows of their own.
# Fill the sets with: ipset add SET ADDRESS/PREFIX. Running the script again replaces the chains.
set -eu

ipset create -exist peerdist_server hash:net  # addresses of the server
ipset create -exist peerdist_central_office hash:net  # subnets of the Central Office
ipset create -exist peerdist_own_office hash:net  # subnets of this host's office
ipset create -exist peerdist_parent_office hash:net  # subnets of the parent office; empty in the Central Office
ipset create -exist peerdist_child_offices hash:net  # subnets of all child offices; empty where there are none
ipset create -exist peerdist_broadcast hash:net  # broadcast addresses of this host's subnets

iptables -N PEERDIST-INPUT 2>/dev/null || iptables -F PEERDIST-INPUT
iptables -A PEERDIST-INPUT -i lo -j RETURN
iptables -A PEERDIST-INPUT -p udp --dport 34329 -m addrtype --src-type LOCAL -m comment --comment "a node's own copy of its broadcast" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34324 -m set --match-set peerdist_server src -m comment --comment "table 2 row 7: server to client 34324" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34325 -m set --match-set peerdist_server src -m comment --comment "table 2 row 8: server to client 34325" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34335 -m set --match-set peerdist_server src -m comment --comment "table 2 row 9: server to client 34335" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34337 -m set --match-set peerdist_server src -m comment --comment "table 2 row 10: server to client 34337" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34343 -m set --match-set peerdist_server src -m comment --comment "table 2 row 11: server to client 34343" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34345 -m set --match-set peerdist_server src -m comment --comment "table 2 row 12: server to client 34345" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34324 -m set --match-set peerdist_own_office src -m comment --comment "table 3 row 13: client to client 34324" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34324 -m set --match-set peerdist_parent_office src -m comment --comment "table 3 row 13: client to client 34324" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34324 -m set --match-set peerdist_child_offices src -m comment --comment "table 3 row 13: client to client 34324" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34325 -m set --match-set peerdist_own_office src -m comment --comment "table 3 row 14: client to client 34325" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34325 -m set --match-set peerdist_parent_office src -m comment --comment "table 3 row 14: client to client 34325" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34325 -m set --match-set peerdist_child_offices src -m comment --comment "table 3 row 14: client to client 34325" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34335 -m set --match-set peerdist_own_office src -m comment --comment "table 3 row 15: client to client 34335" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34335 -m set --match-set peerdist_parent_office src -m comment --comment "table 3 row 15: client to client 34335" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34335 -m set --match-set peerdist_child_offices src -m comment --comment "table 3 row 15: client to client 34335" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34337 -m set --match-set peerdist_own_office src -m comment --comment "table 3 row 16: client to client 34337" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34337 -m set --match-set peerdist_parent_office src -m comment --comment "table 3 row 16: client to client 34337" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34337 -m set --match-set peerdist_child_offices src -m comment --comment "table 3 row 16: client to client 34337" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34343 -m set --match-set peerdist_own_office src -m comment --comment "table 3 row 17: client to client 34343" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34343 -m set --match-set peerdist_parent_office src -m comment --comment "table 3 row 17: client to client 34343" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34343 -m set --match-set peerdist_child_offices src -m comment --comment "table 3 row 17: client to client 34343" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34345 -m set --match-set peerdist_own_office src -m comment --comment "table 3 row 18: client to client 34345" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34345 -m set --match-set peerdist_parent_office src -m comment --comment "table 3 row 18: client to client 34345" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34345 -m set --match-set peerdist_child_offices src -m comment --comment "table 3 row 18: client to client 34345" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34329 -m set --match-set peerdist_own_office src -m set --match-set peerdist_broadcast dst -m comment --comment "table 4 row 19: client to client 34329" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34760 -m set --match-set peerdist_server src -m set --match-set peerdist_central_office dst -m comment --comment "table 5 row 20: server to client 34760" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34760 -m set --match-set peerdist_own_office src -m comment --comment "table 6 row 21: client to client 34760" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34750 -m set --match-set peerdist_parent_office src -m comment --comment "table 6 row 22: client to client 34750" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34546 -m set --match-set peerdist_own_office src -m comment --comment "table 7 row 24: client to client 34546" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34546 -m set --match-set peerdist_parent_office src -m comment --comment "table 7 row 24: client to client 34546" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp --dport 34546 -m set --match-set peerdist_child_offices src -m comment --comment "table 7 row 24: client to client 34546" -j ACCEPT
iptables -A PEERDIST-INPUT -p udp -m multiport --dports 34324,34325,34329,34335,34337,34343,34345,34546,34750,34760 -j DROP
iptables -C INPUT -j PEERDIST-INPUT 2>/dev/null || iptables -I INPUT -j PEERDIST-INPUT

iptables -N PEERDIST-OUTPUT 2>/dev/null || iptables -F PEERDIST-OUTPUT
iptables -A PEERDIST-OUTPUT -o lo -j RETURN
iptables -A PEERDIST-OUTPUT -p udp --dport 34322 -m set --match-set peerdist_server dst -m comment --comment "table 1 row 1: client to server 34322" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34323 -m set --match-set peerdist_server dst -m comment --comment "table 1 row 2: client to server 34323" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34331 -m set --match-set peerdist_server dst -m comment --comment "table 1 row 3: client to server 34331" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34333 -m set --match-set peerdist_server dst -m comment --comment "table 1 row 4: client to server 34333" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34339 -m set --match-set peerdist_server dst -m comment --comment "table 1 row 5: client to server 34339" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34341 -m set --match-set peerdist_server dst -m comment --comment "table 1 row 6: client to server 34341" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34324 -m set --match-set peerdist_own_office dst -m comment --comment "table 3 row 13: client to client 34324" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34324 -m set --match-set peerdist_parent_office dst -m comment --comment "table 3 row 13: client to client 34324" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34324 -m set --match-set peerdist_child_offices dst -m comment --comment "table 3 row 13: client to client 34324" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34325 -m set --match-set peerdist_own_office dst -m comment --comment "table 3 row 14: client to client 34325" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34325 -m set --match-set peerdist_parent_office dst -m comment --comment "table 3 row 14: client to client 34325" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34325 -m set --match-set peerdist_child_offices dst -m comment --comment "table 3 row 14: client to client 34325" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34335 -m set --match-set peerdist_own_office dst -m comment --comment "table 3 row 15: client to client 34335" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34335 -m set --match-set peerdist_parent_office dst -m comment --comment "table 3 row 15: client to client 34335" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34335 -m set --match-set peerdist_child_offices dst -m comment --comment "table 3 row 15: client to client 34335" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34337 -m set --match-set peerdist_own_office dst -m comment --comment "table 3 row 16: client to client 34337" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34337 -m set --match-set peerdist_parent_office dst -m comment --comment "table 3 row 16: client to client 34337" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34337 -m set --match-set peerdist_child_offices dst -m comment --comment "table 3 row 16: client to client 34337" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34343 -m set --match-set peerdist_own_office dst -m comment --comment "table 3 row 17: client to client 34343" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34343 -m set --match-set peerdist_parent_office dst -m comment --comment "table 3 row 17: client to client 34343" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34343 -m set --match-set peerdist_child_offices dst -m comment --comment "table 3 row 17: client to client 34343" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34345 -m set --match-set peerdist_own_office dst -m comment --comment "table 3 row 18: client to client 34345" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34345 -m set --match-set peerdist_parent_office dst -m comment --comment "table 3 row 18: client to client 34345" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34345 -m set --match-set peerdist_child_offices dst -m comment --comment "table 3 row 18: client to client 34345" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34329 -m set --match-set peerdist_broadcast dst -m comment --comment "table 4 row 19: client to client 34329" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34760 -m set --match-set peerdist_own_office dst -m comment --comment "table 6 row 21: client to client 34760" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34750 -m set --match-set peerdist_child_offices dst -m comment --comment "table 6 row 22: client to client 34750" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34545 -m set --match-set peerdist_server dst -m comment --comment "table 7 row 23: client to server 34545" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34546 -m set --match-set peerdist_own_office dst -m comment --comment "table 7 row 24: client to client 34546" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34546 -m set --match-set peerdist_parent_office dst -m comment --comment "table 7 row 24: client to client 34546" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp --dport 34546 -m set --match-set peerdist_child_offices dst -m comment --comment "table 7 row 24: client to client 34546" -j ACCEPT
iptables -A PEERDIST-OUTPUT -p udp -m multiport --sports 34324,34325,34329,34335,34337,34343,34345,34546,34750,34760 -j DROP
iptables -C OUTPUT -j PEERDIST-OUTPUT 2>/dev/null || iptables -I OUTPUT -j PEERDIST-OUTPUT
