//! Windows: a PowerShell script of `New-NetFirewallRule` calls in the group `peerdist`.
//!
//! Windows drops unsolicited input and lets output pass unless a policy says otherwise, so both directions are
//! rendered as permissions; the default is the administrator's.

use std::fmt::Write;

use peerdist_core::ports::Role;

use super::{AddressSet, FirewallRule, RuleDirection, role_name, rules, sets_of};

/// Renders the script. Running it again replaces every rule of the group.
pub fn render_windows(role: Option<Role>) -> String {
    let rules = rules(role);
    let mut text = format!(
        "# peerdist ports of a host with the role {}. Run as administrator; running it again replaces the rules.\n\
         # Fill the lists, for example @('10.0.5.10', '10.42.0.0/24'). Rules of an empty list are left out.\n",
        role.map_or("server, client and vesc", role_name)
    );
    for set in sets_of(&rules) {
        let _ = writeln!(text, "${} = @()  # {}", variable(set), set.meaning());
    }
    text += PROLOGUE;
    for rule in &rules {
        text += &call(rule);
    }
    text
}

const PROLOGUE: &str = r#"
function Add-PeerdistRule($Name, $Direction, $Port, $Peers, $Own) {
    if ($Peers.Count -eq 0 -or $Own.Count -eq 0) { return }
    $ports = if ($Direction -eq 'Inbound') { @{ LocalPort = $Port } } else { @{ RemotePort = $Port } }
    New-NetFirewallRule -Group 'peerdist' -DisplayName $Name -Direction $Direction -Protocol UDP @ports `
        -RemoteAddress $Peers -LocalAddress $Own -Profile Any -Action Allow | Out-Null
}

Remove-NetFirewallRule -Group 'peerdist' -ErrorAction SilentlyContinue
"#;

fn call(rule: &FirewallRule) -> String {
    let direction = match rule.direction {
        RuleDirection::Input => "Inbound",
        RuleDirection::Output => "Outbound",
    };
    let peers: Vec<String> = rule.peers.iter().map(|&set| format!("${}", variable(set))).collect();
    // Windows has no local address for a broadcast: only membership of an office is a condition on the host itself.
    let own = rule.own.filter(|set| *set != AddressSet::Broadcast);
    let own = own.map_or("'Any'".to_owned(), |set| format!("${}", variable(set)));
    format!(
        "Add-PeerdistRule 'peerdist {} {}' {direction} {} ({}) @({own})\n",
        rule.comment(),
        if rule.direction == RuleDirection::Input { "in" } else { "out" },
        rule.row.port,
        peers.join(" + "),
    )
}

/// `peerdist_own_office` as `PeerdistOwnOffice`.
fn variable(set: AddressSet) -> String {
    set.name().split('_').map(capitalised).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}
