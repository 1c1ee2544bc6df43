//! Finding what is to be saved.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::manifest::{Note, NoteKind};
use crate::{BackupError, names};

/// Links of a chain that are followed before it counts as a loop; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// What will go into one archive.
#[derive(Debug)]
pub(crate) struct Collected {
    /// Absolute, without symbolic links.
    pub(crate) base: PathBuf,
    /// Relative to the base; parents sort before what is in them.
    pub(crate) members: BTreeSet<PathBuf>,
    pub(crate) notes: Vec<Note>,
    /// Globs that matched nothing.
    pub(crate) unmatched: Vec<String>,
    /// Whether a file that changes while it is read is a failure.
    pub(crate) strict: bool,
}

impl Collected {
    fn insert_with_parents(&mut self, relative: &Path) {
        for ancestor in relative.ancestors().filter(|a| !a.as_os_str().is_empty()) {
            if !self.members.insert(ancestor.to_owned()) {
                break;
            }
        }
    }
}

/// Files by name. A symbolic link is saved as a link, and so is every link after it and the file at the end.
pub(crate) fn files<P: AsRef<Path>>(paths: &[P]) -> Result<Collected, BackupError> {
    let mut found = Collected {
        base: PathBuf::from("/"),
        members: BTreeSet::new(),
        notes: Vec::new(),
        unmatched: Vec::new(),
        strict: true,
    };
    for given in paths {
        let given = given.as_ref();
        if !names::is_absolute_and_plain(given) {
            return Err(BackupError::NotAbsolute {
                path: given.to_owned(),
            });
        }
        let mut next = given.to_owned();
        for hop in 0.. {
            if hop == MAX_LINKS {
                return Err(BackupError::NotAFile {
                    path: given.to_owned(),
                    what: "a loop of symbolic links",
                });
            }
            let (Some(parent), Some(name)) = (next.parent(), next.file_name()) else {
                return Err(BackupError::NotAFile {
                    path: given.to_owned(),
                    what: "a directory",
                });
            };
            // Links among the directories are resolved, so that what is restored never has to pass one.
            let real = fs::canonicalize(parent)
                .map_err(|e| BackupError::source(parent, e))?
                .join(name);
            let kind = fs::symlink_metadata(&real)
                .map_err(|e| BackupError::source(&real, e))?
                .file_type();
            let relative = real
                .strip_prefix("/")
                .expect("canonical paths are absolute");
            if kind.is_symlink() {
                found.insert_with_parents(relative);
                let target = fs::read_link(&real).map_err(|e| BackupError::source(&real, e))?;
                next = step(&real, &target)?;
            } else if kind.is_file() {
                found.insert_with_parents(relative);
                break;
            } else {
                let what = if kind.is_dir() {
                    "a directory"
                } else {
                    "a socket, pipe or device"
                };
                return Err(BackupError::NotAFile {
                    path: given.to_owned(),
                    what,
                });
            }
        }
    }
    Ok(found)
}

/// Where a link leads: its last name, in the real directory that the rest of its text names.
fn step(link: &Path, target: &Path) -> Result<PathBuf, BackupError> {
    let joined = link.parent().unwrap_or(Path::new("/")).join(target);
    match (joined.parent(), joined.file_name()) {
        (Some(parent), Some(name)) => fs::canonicalize(parent)
            .map(|p| p.join(name))
            .map_err(|e| BackupError::source(parent, e)),
        // It ends in `..`: a directory, which the caller refuses by name.
        _ => fs::canonicalize(&joined).map_err(|e| BackupError::source(&joined, e)),
    }
}

/// Files, links and directories below `root` that a glob matches and no `!glob` does.
///
/// `*` and `?` stop at `/`, `**` does not; a pattern is matched against the path relative to `root`. A directory that a `!glob`
/// matches is not entered. Links are not followed, other file systems not entered, `never` (the backup root) is left out.
pub(crate) fn globs<S: AsRef<str>>(
    root: &Path,
    globs: &[S],
    never: &Path,
) -> Result<Collected, BackupError> {
    if !names::is_absolute_and_plain(root) {
        return Err(BackupError::NotAbsolute {
            path: root.to_owned(),
        });
    }
    let base = fs::canonicalize(root).map_err(|e| BackupError::source(root, e))?;
    let (excluding, including): (Vec<&str>, Vec<&str>) = globs
        .iter()
        .map(AsRef::as_ref)
        .partition(|g| g.starts_with('!'));
    let include = compile(&including)?;
    let exclude = compile(&excluding.iter().map(|g| &g[1..]).collect::<Vec<_>>())?;
    let mut used = vec![false; including.len()];
    let mut found = Collected {
        base: base.clone(),
        members: BTreeSet::new(),
        notes: Vec::new(),
        unmatched: Vec::new(),
        strict: false,
    };
    let inside = |path: &Path| {
        path.strip_prefix(&base)
            .expect("the walk stays below its root")
            .to_owned()
    };
    let walk = walkdir::WalkDir::new(&base)
        .follow_links(false)
        .same_file_system(true)
        .into_iter()
        .filter_entry(|e| {
            e.depth() == 0 || (e.path() != never && !exclude.is_match(inside(e.path())))
        });
    for entry in walk {
        let entry = match entry {
            Ok(entry) if entry.depth() == 0 => continue,
            Ok(entry) => entry,
            // Applications delete files while we look; what is gone was never there. Anything else is a failure to look.
            Err(e)
                if e.io_error()
                    .is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
                    && e.depth() > 0 =>
            {
                continue;
            }
            Err(e) => {
                let path = e.path().unwrap_or(&base).to_owned();
                let source = e
                    .into_io_error()
                    .unwrap_or_else(|| io::ErrorKind::Other.into());
                return Err(BackupError::Source { path, source });
            }
        };
        let relative = inside(entry.path());
        let matches = include.matches(&relative);
        if matches.is_empty() {
            continue;
        }
        for index in matches {
            used[index] = true;
        }
        let kind = entry.file_type();
        if kind.is_file() || kind.is_symlink() || kind.is_dir() {
            found.insert_with_parents(&relative);
        } else {
            found.notes.push(Note {
                path: relative,
                kind: NoteKind::Special,
            });
        }
    }
    found.unmatched = including
        .iter()
        .zip(&used)
        .filter(|(_, used)| !**used)
        .map(|(glob, _)| (*glob).to_owned())
        .collect();
    Ok(found)
}

fn compile(globs: &[&str]) -> Result<GlobSet, BackupError> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let error = |e: globset::Error| BackupError::Glob {
            glob: (*glob).to_owned(),
            reason: e.kind().to_string(),
        };
        set.add(
            GlobBuilder::new(glob)
                .literal_separator(true)
                .build()
                .map_err(error)?,
        );
    }
    set.build().map_err(|e| BackupError::Glob {
        glob: globs.join(" "),
        reason: e.kind().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(found: &Collected) -> Vec<String> {
        found
            .members
            .iter()
            .map(|p| p.display().to_string())
            .collect()
    }

    #[test]
    fn a_link_brings_every_link_after_it_and_the_file_at_the_end() {
        let tmp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(tmp.path()).unwrap();
        fs::create_dir(root.join("real")).unwrap();
        fs::write(root.join("real/env"), "A=1").unwrap();
        symlink("../real/env", root.join("real/second")).unwrap();
        symlink(root.join("real"), root.join("folder")).unwrap();
        symlink("folder/second", root.join("first")).unwrap();
        let found = files(&[root.join("first")]).unwrap();
        let below = root.strip_prefix("/").unwrap();
        for name in ["first", "real/second", "real/env", "real"] {
            assert!(
                found.members.contains(&below.join(name)),
                "{name} in {found:?}"
            );
        }
        assert!(
            !found.members.contains(&below.join("folder")),
            "directories are resolved"
        );
    }

    #[test]
    fn loops_directories_and_relative_paths_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        symlink("b", tmp.path().join("a")).unwrap();
        symlink("a", tmp.path().join("b")).unwrap();
        assert!(matches!(
            files(&[tmp.path().join("a")]),
            Err(BackupError::NotAFile { .. })
        ));
        assert!(matches!(
            files(&[tmp.path()]),
            Err(BackupError::NotAFile {
                what: "a directory",
                ..
            })
        ));
        assert!(matches!(
            files(&["relative"]),
            Err(BackupError::NotAbsolute { .. })
        ));
        assert!(matches!(
            files(&["/etc/../etc/passwd"]),
            Err(BackupError::NotAbsolute { .. })
        ));
        symlink("..", tmp.path().join("up")).unwrap();
        assert!(matches!(
            files(&[tmp.path().join("up")]),
            Err(BackupError::NotAFile { .. })
        ));
        assert!(matches!(
            files(&[tmp.path().join("none")]),
            Err(BackupError::Source { .. })
        ));
    }

    #[test]
    fn globs_stop_at_slashes_leave_out_what_is_excluded_and_name_what_matched_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(tmp.path()).unwrap();
        for file in [
            "app/a.js",
            "app/deep/b.js",
            "app/node_modules/c.js",
            "backups/old.js",
            "top.js",
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        let never = root.join("backups");
        let found = globs(&root, &["**/*.js", "!**/node_modules", "none/*"], &never).unwrap();
        assert_eq!(
            names(&found),
            ["app", "app/a.js", "app/deep", "app/deep/b.js", "top.js"]
        );
        assert_eq!(found.unmatched, ["none/*"]);
        assert_eq!(names(&globs(&root, &["*.js"], &never).unwrap()), ["top.js"]);
        assert!(matches!(
            globs(&root, &["a["], &never),
            Err(BackupError::Glob { .. })
        ));
    }

    #[test]
    fn a_socket_is_noted_and_not_saved() {
        let tmp = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tmp.path().join("s")).unwrap();
        let found = globs(tmp.path(), &["*"], Path::new("/nowhere")).unwrap();
        assert!(found.members.is_empty());
        assert_eq!(
            found.notes,
            [Note {
                path: "s".into(),
                kind: NoteKind::Special
            }]
        );
    }
}
