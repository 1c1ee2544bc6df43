//! Names of directories and parts, and paths as text.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use crate::BackupError;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const MANIFEST_UNFINISHED: &str = "manifest.json.unfinished";
pub(crate) const CONTENTS: &str = "contents.json.age";
const SUFFIX: &str = "-secret-rotation";

/// The directory's name for `at`; `number` counts from 1 and shows from 2.
pub(crate) fn directory(at: Timestamp, number: u32) -> String {
    let stamp = at.strftime("%Y%m%dT%H%M%SZ");
    if number < 2 {
        format!("{stamp}{SUFFIX}")
    } else {
        format!("{stamp}{SUFFIX}-{number}")
    }
}

/// The time in a directory's name, to the second, and its number; `None` for a directory that is not a backup's.
pub(crate) fn parse_directory(name: &str) -> Option<(Timestamp, u32)> {
    let (stamp, rest) = (name.get(..16)?, name.get(16..)?);
    let number = match rest.strip_prefix(SUFFIX)? {
        "" => 1,
        tail => tail.strip_prefix('-')?.parse().ok().filter(|n| *n >= 2)?,
    };
    let digits = |range: std::ops::Range<usize>| {
        stamp
            .get(range)
            .filter(|t| t.bytes().all(|b| b.is_ascii_digit()))
    };
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        digits(0..4)?,
        digits(4..6)?,
        digits(6..8)?,
        digits(9..11)?,
        digits(11..13)?,
        digits(13..15)?
    );
    let at = text.parse().ok()?;
    (directory(at, number) == name).then_some((at, number))
}

/// Whether a label or stream name can be part of a file name and cannot be taken for one of keyroll's own.
pub(crate) fn part(name: &str) -> Result<&str, BackupError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = (1..=64).contains(&name.len())
        && plain(name.as_bytes()[0])
        && name
            .bytes()
            .all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
        && !name.starts_with("manifest.json")
        && !name.starts_with("contents.json");
    if fits {
        Ok(name)
    } else {
        Err(BackupError::Name {
            name: name.to_owned(),
        })
    }
}

/// The file name of the archive with this label.
pub(crate) fn archive_file(label: &str) -> String {
    format!("{label}.tar.gz.age")
}

/// The file name of the stream with this name.
pub(crate) fn stream_file(name: &str) -> String {
    format!("{name}.age")
}

/// Whether `path` is relative, not empty, and made of plain names alone: it cannot leave the directory it is joined to.
pub(crate) fn stays_inside(path: &Path) -> bool {
    let text = path.as_os_str().as_bytes();
    !text.is_empty()
        && !text.contains(&0)
        && path.components().all(|c| matches!(c, Component::Normal(_)))
        // `components` forgives `a//b`, `a/./b` and `a/`; keyroll writes none of them.
        && path.components().collect::<PathBuf>().as_os_str() == path.as_os_str()
}

/// Whether `path` is absolute and made of plain names alone.
pub(crate) fn is_absolute_and_plain(path: &Path) -> bool {
    path.is_absolute()
        && !path.as_os_str().as_bytes().contains(&0)
        && path
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)))
}

/// A path as JSON text: `%`, control characters and bytes that are not UTF-8 become `%XX`, all else stays readable.
pub(crate) mod path_text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn encode(path: &Path) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for chunk in path.as_os_str().as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                if character == '%' || character.is_ascii_control() {
                    let _ = write!(text, "%{:02X}", u32::from(character));
                } else {
                    text.push(character);
                }
            }
            for byte in chunk.invalid() {
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }

    pub(crate) fn decode(text: &str) -> Option<PathBuf> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            if *first == b'%' {
                let code = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(code, 16).ok()?);
                rest = &tail[2..];
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }

    pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(path))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no encoded path")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn directory_names_read_back_and_others_do_not() {
        let at: Timestamp = "2026-11-23T23:15:00.7Z".parse().unwrap();
        assert_eq!(directory(at, 1), "20261123T231500Z-secret-rotation");
        assert_eq!(parse_directory(&directory(at, 3)).unwrap().1, 3);
        for other in [
            "20261123T231500Z",
            "20261123T231500Z-secret-rotation-1",
            "20261123T231500Z-secret-rotation-x",
            "20261323T231500Z-secret-rotation",
            "+0261123T231500Z-secret-rotation",
            "ü20261123T231500-secret-rotation",
            "lost+found",
        ] {
            assert_eq!(parse_directory(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_could_leave_the_directory_or_pose_as_the_manifest_are_refused() {
        for bad in [
            "",
            "..",
            ".x",
            "a/b",
            "A",
            "manifest.json",
            "contents.json",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(part(bad).is_err(), "{bad:?}");
        }
        assert!(part("database.dump").is_ok());
    }

    #[test]
    fn only_plain_relative_paths_stay_inside() {
        for bad in [
            "", "/etc", "../x", "a/../b", "a/./b", "./a", "a//b", "a/", "a\0b",
        ] {
            assert!(!stays_inside(Path::new(bad)), "{bad:?}");
        }
        assert!(stays_inside(Path::new("a/b.c/..d")));
    }

    proptest! {
        #[test]
        fn any_path_survives_its_text(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let path = PathBuf::from(OsString::from_vec(bytes));
            prop_assert_eq!(path_text::decode(&path_text::encode(&path)), Some(path));
        }
    }
}
