//! Which files of the server's machine may be sources: any where who writes the objects owns that machine, and in a
//! cluster those below the folders that its administrator named. Such a folder is opened first and everything below it
//! from there without following a link, so that nobody who may write there leads the server elsewhere, at no moment.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{SourceError, WITH_VERSION};
use super::file::{Origin, failed_at_top};
use crate::store::beneath;

/// A folder whose files may be sources: an absolute path below `/`, without `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRoot(PathBuf);

/// A text that names no such folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no folder for sources: expected an absolute path below / without ..")]
pub struct FileRootError(String);

impl FromStr for FileRoot {
    type Err = FileRootError;
    fn from_str(text: &str) -> Result<Self, FileRootError> {
        let path = Path::new(text);
        let is_below_top = path.is_absolute() && path.parent().is_some();
        if is_below_top && path.components().skip(1).all(is_name) {
            return Ok(Self(path.components().collect()));
        }
        Err(FileRootError(text.to_owned()))
    }
}

impl fmt::Display for FileRoot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.display())
    }
}

/// The rule of one server.
#[derive(Debug, Clone)]
pub struct FileRule(Option<Arc<[FileRoot]>>);

/// A file that the rule forbids, with what is expected instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this file of the server's machine is no source: expected {0}; put it there and correct spec.source.uri \
     {WITH_VERSION}, or let the administrator of peerdist name its folder (server.fileRoots)"
)]
pub struct FileForbidden(String);

impl FileRule {
    /// Every file: who writes the objects may do whatever this process may.
    pub fn any() -> Self {
        Self(None)
    }

    /// What lies in one of the folders, and nothing when there is none.
    pub fn beneath(roots: Vec<FileRoot>) -> Self {
        Self(Some(roots.into()))
    }

    /// Looks at the text of a path only: what it leads to is seen when it is opened.
    ///
    /// # Errors
    /// [`FileForbidden`]
    pub fn check(&self, path: &Path) -> Result<(), FileForbidden> {
        self.place(path).map(drop)
    }

    /// Opens what is at `path`. In a folder that somebody named, no component below that may be a link.
    ///
    /// # Errors
    /// As [`Origin::open`], and [`SourceError::FileSourceNotAllowed`].
    pub fn open(&self, path: &Path) -> Result<Origin, SourceError> {
        let forbidden =
            |fault: FileForbidden| SourceError::FileSourceNotAllowed { path: path.into(), expected: fault.0 };
        let Some((root, rest)) = self.place(path).map_err(forbidden)? else { return Origin::open(path) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| failed_at_top(root, errno))?;
        let rest = match rest.as_os_str().as_bytes() {
            [] => &b"."[..],
            rest => rest,
        };
        let open = |flags| beneath::open(&top, rest, flags).map_err(|error| failed_beneath(root, path, &error));
        // To look at it opens nothing yet: a device or a pipe would notice.
        let stat = rustix::fs::fstat(open(OFlags::PATH)?).map_err(|errno| failed_at_top(path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(behind_link(root, path));
        }
        Origin::of_kind(path, &stat, open)
    }

    /// The folder that a path lies in and the rest of the path; `None` when any file may be a source.
    fn place<'a>(&'a self, path: &'a Path) -> Result<Option<(&'a Path, &'a Path)>, FileForbidden> {
        let Some(roots) = &self.0 else { return Ok(None) };
        let within = |root: &'a FileRoot| {
            let rest = path.strip_prefix(&root.0).ok()?;
            rest.components().all(is_name).then_some((root.0.as_path(), rest))
        };
        roots.iter().find_map(within).map(Some).ok_or_else(|| FileForbidden(expected(roots)))
    }
}

fn is_name(component: Component<'_>) -> bool {
    matches!(component, Component::Normal(_))
}

fn expected(roots: &[FileRoot]) -> String {
    if roots.is_empty() {
        return "http:// or https://, since no folder is named whose files may be sources".to_owned();
    }
    let names: Vec<String> = roots.iter().map(ToString::to_string).collect();
    format!("http://, https://, or a file in {}", names.join(", "))
}

fn failed_beneath(root: &Path, path: &Path, error: &io::Error) -> SourceError {
    match Errno::from_io_error(error) {
        Some(Errno::LOOP | Errno::XDEV) => behind_link(root, path),
        errno => failed_at_top(path, errno.unwrap_or(Errno::IO)),
    }
}

fn behind_link(root: &Path, path: &Path) -> SourceError {
    let expected = format!("a path without symbolic links below {}", root.display());
    SourceError::FileSourceNotAllowed { path: path.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn rule(roots: &[&str]) -> FileRule {
        FileRule::beneath(roots.iter().map(|root| root.parse().unwrap()).collect())
    }

    #[test]
    fn folders_are_absolute_and_plain() {
        for good in ["/srv", "/srv/files", "/srv/..files", "/srv/files/"] {
            assert!(good.parse::<FileRoot>().is_ok(), "{good}");
        }
        for bad in ["", "/", "//", "srv", "./srv", "/srv/..", "/srv/../etc", "/.."] {
            assert!(bad.parse::<FileRoot>().is_err(), "{bad}");
        }
        assert_eq!("/srv//files/".parse::<FileRoot>().unwrap().to_string(), "/srv/files");
    }

    #[test]
    fn a_file_is_a_source_when_it_lies_in_a_folder_by_components() {
        let files = rule(&["/srv/files", "/data"]);
        for good in ["/srv/files", "/srv/files/a", "/srv/files/a/b", "/data/x", "/data/..x"] {
            assert_eq!(files.check(Path::new(good)), Ok(()), "{good}");
        }
        for bad in ["/srv/files2/a", "/srv", "/", "/etc/passwd", "/srv/files/../a", "/data/a/../../etc", "data/x"] {
            let fault = files.check(Path::new(bad)).unwrap_err().to_string();
            assert!(fault.contains("a file in /srv/files, /data;"), "{bad}: {fault}");
        }
        let fault = rule(&[]).check(Path::new("/srv/files/a")).unwrap_err().to_string();
        assert!(fault.contains("no folder is named") && fault.contains("server.fileRoots"), "{fault}");
        assert_eq!(FileRule::any().check(Path::new("/etc/passwd")), Ok(()));
    }

    #[test]
    fn what_lies_in_a_folder_is_opened_and_no_link_leads_on() {
        let scene = tempfile::tempdir().unwrap();
        let (inside, outside) = (scene.path().join("inside"), scene.path().join("outside"));
        fs::create_dir_all(inside.join("deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(inside.join("deep/file"), b"file").unwrap();
        fs::write(outside.join("secret"), b"secret").unwrap();
        symlink("../outside", inside.join("relative")).unwrap();
        symlink(&outside, inside.join("absolute")).unwrap();
        symlink("../outside/secret", inside.join("last")).unwrap();
        symlink("deep", inside.join("alias")).unwrap();
        let files = rule(&[inside.to_str().unwrap()]);
        assert!(matches!(files.open(&inside), Ok(Origin::Directory(_))));
        assert!(matches!(files.open(&inside.join("deep")), Ok(Origin::Directory(_))));
        match files.open(&inside.join("deep/file")) {
            Ok(Origin::File(file)) => assert_eq!(file.bytes(), 4),
            _ => panic!("the file does not open"),
        }
        for link in ["relative", "relative/secret", "absolute", "absolute/secret", "last", "alias", "alias/file"] {
            let error = files.open(&inside.join(link)).err().unwrap();
            assert_eq!(error.reason(), "FileSourceNotAllowed", "{link}: {error}");
        }
        let error = files.open(&outside.join("secret")).err().unwrap();
        assert_eq!((error.reason(), error.field()), ("FileSourceNotAllowed", "spec.source.uri"));
        assert_eq!(files.open(&inside.join("missing")).err().unwrap().reason(), "SourceMissing");
        assert!(matches!(FileRule::any().open(&inside.join("last")), Ok(Origin::File(_))), "embedded mode follows");
    }

    #[test]
    fn what_is_no_file_or_directory_is_not_even_opened() {
        let scene = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, scene.path().join("pipe"), Mode::RUSR).unwrap();
        let files = rule(&[scene.path().to_str().unwrap()]);
        assert_eq!(files.open(&scene.path().join("pipe")).err().unwrap().reason(), "EntryRefused");
    }
}
