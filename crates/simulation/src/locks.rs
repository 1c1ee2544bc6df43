//! The two kinds of locks that `SQLite` takes: five levels on a database file, and eight slots beside its shared
//! memory.
//!
//! Both belong to a handle and die with it, as those of a real process do. Neither is on the disk.

use crate::disk::Handle;

/// How far a handle has locked a file (<https://sqlite.org/lockingv3.html>), less the level of no lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Reading; any number of handles.
    Shared,
    /// About to write; one handle, beside readers.
    Reserved,
    /// Waiting for the readers to leave; no new ones come in. Never asked for: it is where a refused
    /// [`Level::Exclusive`] stops.
    Pending,
    /// Writing; one handle alone.
    Exclusive,
}

/// Who has locked one file. A handful of handles at most, so a list is the fastest map.
#[derive(Debug, Default)]
pub(crate) struct FileLocks(Vec<(Handle, Level)>);

impl FileLocks {
    /// Whether the handle has the level, or a higher one, afterwards.
    pub(crate) fn lock(&mut self, handle: Handle, wanted: Level) -> bool {
        let own = self.level(handle);
        if own >= Some(wanted) {
            return true;
        }
        let others = self
            .0
            .iter()
            .filter(|(other, _)| *other != handle)
            .map(|(_, level)| *level)
            .max();
        let granted = match wanted {
            Level::Shared => others < Some(Level::Pending),
            Level::Reserved | Level::Pending => others < Some(Level::Reserved),
            Level::Exclusive => {
                if others >= Some(Level::Reserved) {
                    return false;
                }
                self.set(handle, Level::Pending);
                others.is_none()
            }
        };
        if granted {
            self.set(handle, wanted);
        }
        granted
    }

    /// Lowers the handle's lock, to none or to [`Level::Shared`].
    pub(crate) fn unlock(&mut self, handle: Handle, to: Option<Level>) {
        match to {
            Some(level) if self.level(handle) > Some(level) => self.set(handle, level),
            Some(_) => {}
            None => self.0.retain(|(other, _)| *other != handle),
        }
    }

    /// Whether any handle, this or another, is about to write.
    pub(crate) fn reserved(&self) -> bool {
        self.0.iter().any(|(_, level)| *level >= Level::Reserved)
    }

    fn level(&self, handle: Handle) -> Option<Level> {
        self.0
            .iter()
            .find(|(other, _)| *other == handle)
            .map(|(_, level)| *level)
    }

    fn set(&mut self, handle: Handle, level: Level) {
        match self.0.iter_mut().find(|(other, _)| *other == handle) {
            Some((_, own)) => *own = level,
            None => self.0.push((handle, level)),
        }
    }
}

/// Who has mapped the shared memory of one file, and which of its eight slots each has locked: shared, and alone.
#[derive(Debug, Default)]
pub(crate) struct Slots(Vec<(Handle, u8, u8)>);

impl Slots {
    /// Notes that the handle has mapped the memory.
    pub(crate) fn join(&mut self, handle: Handle) {
        if !self.0.iter().any(|(other, ..)| *other == handle) {
            self.0.push((handle, 0, 0));
        }
    }

    /// Drops the handle and its locks; true when nobody is left and the memory may go.
    pub(crate) fn leave(&mut self, handle: Handle) -> bool {
        self.0.retain(|(other, ..)| *other != handle);
        self.0.is_empty()
    }

    /// Locks all slots of the mask or none.
    pub(crate) fn lock(&mut self, handle: Handle, mask: u8, alone: bool) -> bool {
        let refused = self.0.iter().any(|(other, shared, exclusive)| {
            let against = if alone {
                shared | exclusive
            } else {
                *exclusive
            };
            *other != handle && against & mask != 0
        });
        if refused {
            return false;
        }
        self.join(handle);
        if let Some((_, shared, exclusive)) = self.0.iter_mut().find(|(other, ..)| *other == handle)
        {
            *if alone { exclusive } else { shared } |= mask;
        }
        true
    }

    /// Releases the slots of the mask.
    pub(crate) fn unlock(&mut self, handle: Handle, mask: u8) {
        if let Some((_, shared, exclusive)) = self.0.iter_mut().find(|(other, ..)| *other == handle)
        {
            *shared &= !mask;
            *exclusive &= !mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Handle = Handle(1);
    const B: Handle = Handle(2);
    const C: Handle = Handle(3);

    #[test]
    fn a_writer_beside_a_reader_waits_at_pending_and_lets_no_new_reader_in() {
        let mut locks = FileLocks::default();
        assert!(locks.lock(A, Level::Shared) && locks.lock(B, Level::Shared));
        assert!(locks.lock(A, Level::Reserved));
        assert!(!locks.lock(B, Level::Reserved));
        assert!(!locks.lock(A, Level::Exclusive));
        assert!(!locks.lock(C, Level::Shared));
        locks.unlock(B, None);
        assert!(locks.lock(A, Level::Exclusive));
        locks.unlock(A, Some(Level::Shared));
        assert!(!locks.reserved());
        assert!(locks.lock(C, Level::Shared));
    }

    #[test]
    fn a_reader_cannot_write_past_another_that_is_about_to() {
        let mut locks = FileLocks::default();
        assert!(locks.lock(A, Level::Shared) && locks.lock(B, Level::Shared));
        assert!(locks.lock(A, Level::Reserved));
        assert!(!locks.lock(B, Level::Exclusive));
        // And it did not get halfway there either, where it would keep others out.
        assert!(locks.lock(C, Level::Shared));
    }

    #[test]
    fn a_slot_has_many_sharers_or_one_owner() {
        let mut slots = Slots::default();
        assert!(slots.lock(A, 0b1000, false) && slots.lock(B, 0b1000, false));
        assert!(!slots.lock(C, 0b1100, true));
        slots.unlock(A, 0b1000);
        assert!(!slots.leave(B));
        assert!(slots.lock(C, 0b1100, true));
        assert!(!slots.lock(A, 0b0100, false));
        assert!(!slots.leave(A));
        assert!(slots.leave(C));
    }
}
