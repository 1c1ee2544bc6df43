//! What is saved before a rotation changes anything: encrypted, measured, synced, and recognisable as whole.
//!
//! The problem: a backup is written once and read on the worst day. Hand-written scripts copy the env file beside itself,
//! in plain text, with whatever mode it had, and nobody notices that the dump was cut off until it is needed. So here
//!
//! - nothing is ever plain on disk: every file is an age file (<https://age-encryption.org/v1>), and an operator who is
//!   one of the recipients opens it with the stock `age` tool when keyroll is gone;
//! - a backup is whole only when its `manifest.json` is there, which is written last, after everything else was synced.
//!   A crash, a full disk or a lost connection leaves a directory without one: [`State::Unfinished`], never used;
//! - [`check`] finds damage with no key at all, [`verify`] reads every byte back with one, and [`restore_files`] proves an
//!   archive in full before it changes the first file.
//!
//! # Layout
//!
//! ```text
//! <backup root>/20261123T231500Z-secret-rotation/      mode 0700; `-2`, `-3` … when that second is taken
//!     files.tar.gz.age          an archive of files: label "files"
//!     database.dump.age         a stream: name "database.dump"
//!     contents.json.age         hashes of plain texts, every file's owner and mode, a copy of the manifest
//!     manifest.json             sizes and SHA-256 of the encrypted files; written last
//! ```
//!
//! All files have mode 0600. The manifest is readable without a key, so that a copy of the backup can be checked where no
//! key is. It holds nothing about plain texts: the hash of a short secret file can be guessed offline, so those hashes live in
//! `contents.json.age`.
//!
//! # What it does not prove
//!
//! age encrypts to public keys, so whoever can write to the directory and knows the recipients can make a different whole
//! backup. [`Finished::sha256`] is the hash of the manifest and so of everything; it belongs into the audit record, and
//! [`verify`] compares it when it is given.
//!
//! Extended attributes, ACLs and hard-link identity are not saved. Everything here blocks on the disk: call it from a
//! blocking thread.

mod archive;
mod catalog;
mod collect;
mod error;
mod manifest;
mod names;
mod open;
mod place;
mod restore;
pub mod space;
mod tally;
mod verify;
mod writer;

pub use catalog::Listed;
pub use catalog::State;
pub use catalog::inspect;
pub use catalog::list;
pub use catalog::remove_unfinished;
pub use error::BackupError;
pub use error::Damage;
pub use manifest::Item;
pub use manifest::ItemKind;
pub use manifest::Manifest;
pub use manifest::Member;
pub use manifest::MemberKind;
pub use manifest::Note;
pub use manifest::NoteKind;
pub use open::PlainReader;
pub use open::open;
pub use restore::Change;
pub use restore::Place;
pub use restore::Planned;
pub use restore::Restored;
pub use restore::plan_restore;
pub use restore::restore_files;
pub use tally::Measured;
pub use verify::Verified;
pub use verify::check;
pub use verify::verify;
pub use writer::Added;
pub use writer::BackupStream;
pub use writer::BackupWriter;
pub use writer::Finished;
