//! The forms of sources that are tried: hosts as addresses in every way of writing, names, redirects, and what must work.

/// Addresses of names, as the resolver tells them.
pub(super) const NAMES: [(&str, &str); 22] = [
    ("203.0.113.10", "origin.test"),
    ("2001:db8::10", "origin.test"),
    ("203.0.113.10", "rebinding.test"),
    ("203.0.113.10", "mixed.test"),
    ("127.0.0.1", "mixed.test"),
    ("2001:db8::10", "mixed-six.test"),
    ("::1", "mixed-six.test"),
    ("127.0.0.1", "local.test"),
    ("127.0.0.1", "foo.localhost"),
    ("169.254.169.254", "metadata.google.internal"),
    ("169.254.169.254", "metadata.test"),
    ("10.96.0.1", "kubernetes.default.svc"),
    ("10.244.3.4", "pod.test"),
    ("192.168.50.10", "node.test"),
    ("0.0.0.0", "zero.test"),
    ("100.100.100.200", "shared.test"),
    ("::1", "six.test"),
    ("::ffff:127.0.0.1", "mapped.test"),
    ("64:ff9b::a9fe:a9fe", "translated.test"),
    ("fd00:10:244::5", "pod-six.test"),
    ("fd00:ec2::254", "metadata-six.test"),
    ("2002:7f00:1::", "tunnelled.test"),
];

/// Hosts that mean a forbidden address.
const FORBIDDEN_HOSTS: [&str; 60] = [
    "127.0.0.1",
    "127.0.0.1:80",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "169.254.169.254",
    "169.254.1.1",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.16689662",
    "168.63.129.16",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "10.244.3.4",
    "10.96.0.1",
    "192.168.50.10",
    "0x0a600001",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::ffff:10.244.3.4]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[::ffff:0:127.0.0.1]",
    "[fe80::1]",
    "[fec0::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fd00:10:244::5]",
    "[ff02::1]",
    "localhost",
    "LOCALHOST",
    "alias.test",
    "local.test.",
];

/// Addresses that are forbidden, or none at all.
const FORBIDDEN_ADDRESSES: [&str; 9] = [
    "http://user:password@127.0.0.1/secret",
    "http://origin.test@127.0.0.1/secret",
    "http://127.0.0.1#@origin.test/secret",
    "http://127.0.0.1?@origin.test/secret",
    "HTTP://127.0.0.1/secret",
    "https://127.0.0.1/secret",
    "http:\\\\127.0.0.1\\secret",
    "http:/127.0.0.1/secret",
    "http:127.0.0.1/secret",
];

/// What the origin redirects to, besides the hosts above.
const FORBIDDEN_TARGETS: [&str; 8] = [
    "//127.0.0.1/secret",
    "http://127.0.0.1/ok",
    "http://[::1]/ok",
    "http://metadata.test/ok",
    "http://mixed.test/ok",
    "file:///etc/passwd",
    "ftp://127.0.0.1/secret",
    "https://10.96.0.1/secret",
];

/// What must become of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The content is in the library.
    Arrives,
    /// It is refused, and nobody was connected to but the origin.
    IsRefused,
}

/// One address of a source.
pub(super) struct Form {
    pub(super) name: String,
    pub(super) uri: String,
    pub(super) expected: Expected,
}

/// All forms, under names that objects can have.
pub(super) fn all() -> Vec<Form> {
    let redirect = |target: &str| format!("http://origin.test/to/{}", hex::encode(target));
    let arriving = [
        "http://203.0.113.10/ok".to_owned(),
        "http://[2001:db8::10]/ok".to_owned(),
        "http://origin.test/ok".to_owned(),
        redirect("/ok"),
        redirect("http://[2001:db8::10]/ok"),
        redirect(&redirect("http://203.0.113.10/ok")),
    ];
    let hosts = FORBIDDEN_HOSTS.iter().copied();
    let names = NAMES.iter().map(|(_, name)| *name).filter(|name| !["origin.test", "rebinding.test"].contains(name));
    let mut refused: Vec<String> = hosts.chain(names).map(|host| format!("http://{host}/ok")).collect();
    refused.extend(FORBIDDEN_ADDRESSES.map(str::to_owned));
    refused.extend(FORBIDDEN_TARGETS.map(redirect));
    refused.extend(FORBIDDEN_HOSTS.iter().step_by(5).map(|host| redirect(&format!("http://{host}/ok"))));
    refused.push(redirect(&redirect(&redirect("http://127.0.0.1/ok"))));
    refused.push("http://rebinding.test/rebind".to_owned());
    refused.sort();
    refused.dedup();
    let arriving = arriving.into_iter().map(|uri| (uri, Expected::Arrives));
    let refused = refused.into_iter().map(|uri| (uri, Expected::IsRefused));
    let numbered = arriving.chain(refused).enumerate();
    numbered.map(|(number, (uri, expected))| Form { name: format!("form-{number}"), uri, expected }).collect()
}
