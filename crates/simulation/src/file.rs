//! One file: what processes see of it, and what of that could still be lost.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::Random;
use crate::locks::{FileLocks, Slots};

/// What a drive writes whole or not at all.
const SECTOR: usize = 512;

/// A piece of memory that the processes which have one database open share. Atomics, because each of them writes to it.
pub(crate) type Region = Arc<[AtomicU64]>;

/// The content is kept once, as processes see it, with what it takes to undo each change since the last sync. So a
/// sync, which simulated programs do all the time, costs nothing, and a power loss, once a run, does the work.
#[derive(Debug)]
pub(crate) struct File {
    /// The name at creation; empty when it never had one.
    pub(crate) name: Arc<str>,
    /// How many handles have it open.
    pub(crate) handles: usize,
    pub(crate) locks: FileLocks,
    pub(crate) slots: Slots,
    pub(crate) memory: Vec<Region>,
    /// Shared with images; copied at the first write after an image was taken or used.
    content: Arc<Vec<u8>>,
    changes: Vec<Change>,
    /// The bytes that the changes overwrote or cut off, one after another.
    overwritten: Vec<u8>,
    /// What is durable, kept apart once a failed sync has made part of the content something that never will be.
    platter: Option<Vec<u8>>,
}

/// A change that is not durable.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// The length of the file before it.
    length: usize,
    /// The last this many bytes of `overwritten` up to here are this change's.
    saved: usize,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Write { offset: usize, length: usize },
    Truncate { to: usize },
}

/// How likely the changes to one file are to survive a power loss, out of 8. Even odds for each alone would hardly ever
/// make the cases that matter most: everything reached the platter, nothing did, all but one did.
const MOODS: [u64; 5] = [0, 1, 4, 7, 8];

impl File {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            handles: 0,
            locks: FileLocks::default(),
            slots: Slots::default(),
            memory: Vec::new(),
            content: Arc::default(),
            changes: Vec::new(),
            overwritten: Vec::new(),
            platter: None,
        }
    }

    /// The same file with nobody using it.
    pub(crate) fn image(&self) -> Self {
        Self {
            content: Arc::clone(&self.content),
            changes: self.changes.clone(),
            overwritten: self.overwritten.clone(),
            platter: self.platter.clone(),
            ..Self::new(Arc::clone(&self.name))
        }
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let content = Arc::make_mut(&mut self.content);
        let length = content.len();
        let end = offset + bytes.len();
        let saved = length.min(end).saturating_sub(offset);
        if saved > 0 {
            self.overwritten
                .extend_from_slice(&content[offset..offset + saved]);
        }
        self.changes.push(Change {
            length,
            saved,
            what: What::Write {
                offset,
                length: bytes.len(),
            },
        });
        put(content, offset, bytes);
    }

    pub(crate) fn truncate(&mut self, to: usize) {
        let content = Arc::make_mut(&mut self.content);
        let length = content.len();
        if to == length {
            return;
        }
        let cut = &content[to.min(length)..];
        self.overwritten.extend_from_slice(cut);
        self.changes.push(Change {
            length,
            saved: cut.len(),
            what: What::Truncate { to },
        });
        content.resize(to, 0);
    }

    pub(crate) fn sync(&mut self) {
        if let Some(mut platter) = self.platter.take() {
            let changes = self.undo();
            let content = Arc::make_mut(&mut self.content);
            for (what, bytes) in changes.into_iter().rev() {
                redo(content, what, &bytes);
                redo(&mut platter, what, &bytes);
            }
            self.platter = Some(platter);
        }
        self.changes.clear();
        self.overwritten.clear();
    }

    /// A sync that failed: what was written since the last one stays readable until the power fails, and no later sync
    /// will save it.
    pub(crate) fn forget(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        self.platter = Some(self.durable());
        self.changes.clear();
        self.overwritten.clear();
    }

    /// What would be left if nothing un-synced survived.
    pub(crate) fn durable(&self) -> Vec<u8> {
        if let Some(platter) = &self.platter {
            return platter.clone();
        }
        let mut file = self.image();
        file.undo();
        Arc::unwrap_or_clone(file.content)
    }

    /// Lets each change since the last sync survive, get lost, or be torn, in the order in which they were made.
    ///
    /// A write that is lost takes no other byte with it, and one that survives brings no other: the promise that
    /// `SQLite` calls powersafe overwrite. Two writes to one sector may survive apart, which no drive does and every
    /// checksum must stand.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        if self.changes.is_empty() && self.platter.is_none() {
            return;
        }
        let mood = MOODS[usize::try_from(random.below(5)).unwrap_or(0)];
        let changes = self.undo();
        if let Some(platter) = self.platter.take() {
            self.content = Arc::new(platter);
        }
        let content = Arc::make_mut(&mut self.content);
        for (what, bytes) in changes.into_iter().rev() {
            let torn = random.odds(1, 4) && !matches!(mood, 0 | 8);
            let survives = random.odds(mood, 8);
            match what {
                What::Write { offset, .. } if torn => tear(content, offset, &bytes, random),
                _ if survives => redo(content, what, &bytes),
                _ => {}
            }
        }
    }

    /// Takes the content back to the last sync; gives the changes, last first, each with what it had written.
    fn undo(&mut self) -> Vec<(What, Vec<u8>)> {
        let content = Arc::make_mut(&mut self.content);
        let mut undone = Vec::with_capacity(self.changes.len());
        while let Some(change) = self.changes.pop() {
            let saved = self
                .overwritten
                .split_off(self.overwritten.len() - change.saved);
            let (at, wrote) = match change.what {
                What::Write { offset, length } => {
                    (offset, content[offset..offset + length].to_vec())
                }
                What::Truncate { to } => (to, Vec::new()),
            };
            content.resize(change.length, 0);
            if !saved.is_empty() {
                put(content, at, &saved);
            }
            undone.push((change.what, wrote));
        }
        undone
    }
}

fn redo(content: &mut Vec<u8>, what: What, bytes: &[u8]) {
    match what {
        What::Write { offset, .. } => put(content, offset, bytes),
        What::Truncate { to } => content.resize(to, 0),
    }
}

/// Writes into a buffer as into a file: beyond its end it grows, with zeros in a gap.
fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if offset == content.len() {
        content.extend_from_slice(bytes);
        return;
    }
    if end > content.len() {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// Writes only some of the sectors; a write within one sector is whole or lost.
fn tear(content: &mut Vec<u8>, offset: usize, bytes: &[u8], random: &mut Random) {
    let mut from = 0;
    while from < bytes.len() {
        let to = (from + SECTOR - (offset + from) % SECTOR).min(bytes.len());
        if random.odds(1, 2) {
            put(content, offset + from, &bytes[from..to]);
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = File::new(Arc::default());
        file.write(0, content);
        file.sync();
        file
    }

    /// The states that a power loss can leave, over many seeds.
    fn aftermaths(file: &File) -> std::collections::BTreeSet<Vec<u8>> {
        (0..400)
            .map(|seed| {
                let mut file = file.image();
                file.lose_power(&mut Random::new(seed));
                assert_eq!(file.content(), file.durable());
                file.content().to_vec()
            })
            .collect()
    }

    #[test]
    fn synced_content_survives_everything() {
        let file = file(b"kept");
        assert_eq!(aftermaths(&file).into_iter().collect::<Vec<_>>(), [b"kept"]);
    }

    #[test]
    fn un_synced_writes_survive_independently_and_out_of_order() {
        let mut file = file(b"0000");
        file.write(0, b"11");
        file.write(2, b"22");
        let found = aftermaths(&file);
        for state in [b"0000", b"1100", b"0022", b"1122"] {
            assert!(found.contains(state.as_slice()), "{found:?}");
        }
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn un_synced_truncations_and_what_followed_them_survive_or_not() {
        let mut file = file(b"abcdef");
        file.truncate(2);
        file.write(4, b"x");
        let found = aftermaths(&file);
        for state in [&b"abcdef"[..], b"ab", b"ab\0\0x", b"abcdxf"] {
            assert!(found.contains(state), "{found:?}");
        }
        assert_eq!(file.content(), b"ab\0\0x");
        assert_eq!(file.durable(), b"abcdef");
    }

    #[test]
    fn a_long_write_is_torn_between_sectors_and_never_within_one() {
        let mut file = file(&[0; 2048]);
        file.write(256, &[1; 1280]);
        let found = aftermaths(&file);
        // 256 to 512, two whole sectors, none after 1536: each old or new.
        assert_eq!(found.len(), 8);
        for state in found {
            assert!(state[..256].iter().chain(&state[1536..]).all(|b| *b == 0));
            for sector in state[256..1536].chunk_by(|a, b| a == b) {
                assert_eq!(sector.len() % 256, 0);
            }
        }
    }

    #[test]
    fn a_forgotten_write_is_readable_and_no_later_sync_saves_it() {
        let mut file = file(b"0000");
        file.write(0, b"1111");
        file.forget();
        assert_eq!(file.content(), b"1111");
        file.write(3, b"2");
        file.sync();
        assert_eq!(file.content(), b"1112");
        assert_eq!(aftermaths(&file).into_iter().collect::<Vec<_>>(), [b"0002"]);
    }
}
