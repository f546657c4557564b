//! Folders of the server's nodes whose files may be sources (file://), as the settings name them. Each is mounted into
//! the server's pod where it lies on the node, so that one path means the same to people, operator and server.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// Most folders: each is a volume of the pod, and a refusal names them all.
const ROOTS_MAX: usize = 32;
/// Longest path of one.
const ROOT_BYTES_MAX: usize = 255;
/// What a path of a mount, an argument of a container, and a list of them give a meaning of their own.
const SPECIAL_CHARACTERS: [char; 3] = [',', ':', '$'];
/// What the server's pod has elsewhere than on its node, or keeps to itself: its program, the certificates it trusts, its
/// keys, its token, its library, what the kernel shows; and the usual storage of clients, whose keys it could read, since
/// both are one user.
const RESERVED: [&str; 13] = [
    "/dev",
    "/etc/peerdist",
    "/etc/peerdist-identity",
    "/etc/peerdist-source-authorities",
    "/etc/ssl",
    "/proc",
    "/run/secrets",
    "/sys",
    "/usr/bin",
    "/var/lib/kubelet",
    "/var/lib/peerdist",
    "/var/lib/peerdist-server",
    "/var/run/secrets",
];

/// The folders. None is what a cluster begins with.
#[derive(Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct FileRoots(Vec<PathBuf>);

impl FileRoots {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// Whether a path lies in one of them, component by component.
    pub fn contain(&self, path: &Path) -> bool {
        let within = |root: &Path| path.strip_prefix(root).is_ok_and(|rest| rest.components().all(is_name));
        self.iter().any(within)
    }

    /// The first that holds this folder or lies in it.
    pub fn overlapping(&self, folder: &Path) -> Option<&Path> {
        self.iter().find(|root| overlap(root, folder))
    }

    /// Those that neither hold this folder nor lie in it.
    pub fn apart_from(&self, folder: &Path) -> Self {
        Self(self.iter().filter(|root| !overlap(root, folder)).map(Path::to_owned).collect())
    }

    /// Checks them beside the folder that the server stores in, if that is one of its node.
    ///
    /// # Errors
    /// What was found, and what was expected.
    pub(super) fn check(&self, storage: Option<&str>) -> Result<(), (String, &'static str)> {
        if self.0.len() > ROOTS_MAX {
            return Err((format!("a list of {}", self.0.len()), "at most 32 folders"));
        }
        for (index, root) in self.iter().enumerate() {
            let wrong = |expected| Err((format!("{root:?}"), expected));
            if !is_plain(root) {
                return wrong("absolute paths below / of at most 255 bytes, without . or .. or // or / at the end");
            }
            if root.to_string_lossy().contains(|it: char| it.is_control() || SPECIAL_CHARACTERS.contains(&it)) {
                return wrong("paths without comma, colon, dollar sign and control characters");
            }
            if storage.is_some_and(|storage| overlap(root, Path::new(storage))) {
                return wrong("folders that neither hold nor lie in server.storage.hostPath");
            }
            if RESERVED.iter().any(|reserved| overlap(root, Path::new(reserved))) {
                return wrong("folders that neither hold nor lie in one that the server's pod has for itself");
            }
            if self.iter().take(index).any(|other| overlap(root, other)) {
                return wrong("each folder once, and none in another");
            }
        }
        Ok(())
    }
}

/// All of them in a line, for people and for the server's command line.
impl fmt::Display for FileRoots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, root) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(formatter, "{separator}{}", root.display())?;
        }
        Ok(())
    }
}

/// Whether the path is written as Kubernetes, the operator and the server all read it.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().len();
    let is_below_top = path.is_absolute() && path.parent().is_some() && bytes <= ROOT_BYTES_MAX;
    let same: PathBuf = path.components().collect();
    is_below_top && path.components().skip(1).all(is_name) && same.as_os_str() == path.as_os_str()
}

fn is_name(component: Component<'_>) -> bool {
    matches!(component, Component::Normal(_))
}

/// Whether one of two folders holds the other, component by component.
pub(crate) fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(paths: &[&str]) -> FileRoots {
        FileRoots(paths.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn plain_folders_of_the_node_are_taken() {
        let good = roots(&["/srv/files", "/srv/files2", "/data/..x/a b", "/var/lib/peerdistance", "/usr/share/files"]);
        assert_eq!(good.check(Some("/var/lib/library")), Ok(()));
        assert_eq!(roots(&[]).check(None), Ok(()));
        assert_eq!(roots(&["/srv/files", "/data"]).to_string(), "/srv/files,/data");
    }

    #[test]
    fn what_cannot_be_meant_or_would_give_keys_away_is_refused() {
        let long = format!("/{}", "a".repeat(255));
        for (paths, expected) in [
            (vec!["srv"], "absolute"),
            (vec![""], "absolute"),
            (vec!["/"], "absolute"),
            (vec!["/srv/../etc"], "absolute"),
            (vec!["/srv/./files"], "absolute"),
            (vec!["/srv//files"], "absolute"),
            (vec!["/srv/"], "absolute"),
            (vec![long.as_str()], "absolute"),
            (vec!["/srv/a,b"], "comma"),
            (vec!["/srv/a:b"], "comma"),
            (vec!["/srv/$(HOME)"], "comma"),
            (vec!["/srv/a\nb"], "comma"),
            (vec!["/library"], "hostPath"),
            (vec!["/library/data/packages"], "hostPath"),
            (vec!["/var"], "for itself"),
            (vec!["/etc"], "for itself"),
            (vec!["/run"], "for itself"),
            (vec!["/proc/1/root"], "for itself"),
            (vec!["/var/lib/peerdist/packages"], "for itself"),
            (vec!["/srv/a", "/srv/a"], "once"),
            (vec!["/srv/a", "/srv/a/b"], "once"),
            (vec!["/srv/a/b", "/srv/a"], "once"),
        ] {
            let (_, told) = roots(&paths).check(Some("/library/data")).unwrap_err();
            assert!(told.contains(expected), "{paths:?}: {told}");
        }
        let many: Vec<String> = (0..33).map(|number| format!("/srv/{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(roots(&many).check(None).unwrap_err().0, "a list of 33");
        assert_eq!(roots(&many[1..]).check(None), Ok(()));
    }

    #[test]
    fn paths_lie_in_a_folder_by_components() {
        let roots = roots(&["/srv/files", "/data"]);
        for good in ["/srv/files", "/srv/files/a/b", "/data/..x"] {
            assert!(roots.contain(Path::new(good)), "{good}");
        }
        for bad in ["/srv", "/srv/files2", "/srv/files/../a", "/etc/passwd", "data/x", ""] {
            assert!(!roots.contain(Path::new(bad)), "{bad}");
        }
        assert_eq!(roots.apart_from(Path::new("/srv/files/library")).to_string(), "/data");
        assert_eq!(roots.overlapping(Path::new("/data/x")), Some(Path::new("/data")));
        assert_eq!(roots.overlapping(Path::new("/srv")), Some(Path::new("/srv/files")));
        assert_eq!(roots.overlapping(Path::new("/srv/files2")), None);
    }
}
