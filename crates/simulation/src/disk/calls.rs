//! What a simulated process can do to the disk.

use std::sync::Arc;

use super::{Disk, DiskError, Done, Entry, Handle, Inode, Open, Opening, Process, apply};
use crate::faults::{Kind, Operation, Verdict};
use crate::file::{File, Region};
use crate::locks::Level;

/// What the policy is asked about, and the log told.
#[derive(Clone, Copy)]
struct Request<'a> {
    process: Process,
    kind: Kind,
    file: &'a Arc<str>,
    inode: Option<Inode>,
    offset: u64,
    length: u64,
}

impl<'a> Request<'a> {
    fn new(process: Process, kind: Kind, file: &'a Arc<str>) -> Self {
        Self {
            process,
            kind,
            file,
            inode: None,
            offset: 0,
            length: 0,
        }
    }
}

impl Disk {
    /// Opens a file by name, or an anonymous one that is gone when it is closed.
    pub fn open(
        &mut self,
        process: Process,
        name: Option<&str>,
        opening: Opening,
    ) -> Result<Handle, DiskError> {
        self.alive(process)?;
        let file: Arc<str> = match name.map(|name| self.names.get_key_value(name)) {
            Some(Some((known, _))) => Arc::clone(known),
            _ => name.unwrap_or_default().into(),
        };
        let request = Request::new(process, Kind::Open, &file);
        let opened = self.operate(request, |disk| {
            let known = name.and_then(|_| disk.names.get(&file).copied());
            match (known, opening) {
                (Some(_), Opening::CreateNew) => Err(DiskError::Exists),
                (Some(inode), _) => Ok(inode),
                (None, Opening::Existing) if name.is_some() => Err(DiskError::NotFound),
                (None, _) => {
                    let inode = Inode(disk.number());
                    disk.files.insert(inode, File::new(Arc::clone(&file)));
                    if name.is_some() {
                        disk.names.insert(Arc::clone(&file), inode);
                        disk.entries.push(Entry::Made(Arc::clone(&file), inode));
                    }
                    Ok(inode)
                }
            }
        });
        if opened.is_err() {
            // It may have been made, and be anonymous: then nobody can have it.
            self.collect();
        }
        let inode = opened?;
        let handle = Handle(self.number());
        self.handles.insert(handle, Open { process, inode });
        self.files.entry(inode).and_modify(|file| file.handles += 1);
        Ok(handle)
    }

    /// Closes a handle and drops its locks, also on a machine that has stopped. The last one of a file without a name
    /// frees it. A dead one is no error.
    pub fn close(&mut self, handle: Handle) {
        self.unmap(handle);
        let Some(open) = self.handles.remove(&handle) else {
            return;
        };
        if let Some(file) = self.files.get_mut(&open.inode) {
            file.locks.unlock(handle, None);
            file.handles -= 1;
            if file.handles == 0 {
                self.collect();
            }
        }
    }

    /// Reads as many bytes as there are; says how many.
    pub fn read(&self, handle: Handle, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        let content = self.file(handle)?.content();
        let from = index(offset).min(content.len());
        let got = into.len().min(content.len() - from);
        into[..got].copy_from_slice(&content[from..from + got]);
        Ok(got)
    }

    /// The length of the file.
    pub fn length(&self, handle: Handle) -> Result<u64, DiskError> {
        Ok(self.file(handle)?.content().len() as u64)
    }

    /// The length of a file by name; nothing if there is none.
    pub fn length_of(&self, process: Process, name: &str) -> Result<Option<u64>, DiskError> {
        self.alive(process)?;
        Ok(self.content(name).map(|content| content.len() as u64))
    }

    /// Whether the name that the file was made with means another file by now, or none.
    pub fn has_moved(&self, handle: Handle) -> Result<bool, DiskError> {
        let open = self.handle(handle)?;
        let name = &self.files[&open.inode].name;
        Ok(!name.is_empty() && self.names.get(name) != Some(&open.inode))
    }

    /// Writes; beyond the end the file grows, with zeros in a gap.
    pub fn write(&mut self, handle: Handle, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.change(handle, Kind::Write, offset, bytes.len() as u64, |file| {
            file.write(index(offset), bytes);
        })
    }

    /// Sets the length.
    pub fn truncate(&mut self, handle: Handle, length: u64) -> Result<(), DiskError> {
        self.change(handle, Kind::Truncate, 0, length, |file| {
            file.truncate(index(length));
        })
    }

    /// Makes the content of the file durable, not its name. Data alone and data with metadata are not told apart.
    pub fn sync(&mut self, handle: Handle) -> Result<(), DiskError> {
        let lie = self.sync_is_a_lie;
        self.change(handle, Kind::Sync, 0, 0, |file| {
            if !lie {
                file.sync();
            }
        })
    }

    /// Makes all names durable, and the removal of names.
    pub fn sync_directory(&mut self, process: Process) -> Result<(), DiskError> {
        self.alive(process)?;
        let nameless = Arc::default();
        let request = Request::new(process, Kind::SyncDirectory, &nameless);
        self.operate(request, |disk| {
            if !disk.sync_is_a_lie {
                for entry in disk.entries.drain(..) {
                    apply(&mut disk.durable_names, entry);
                }
                disk.collect();
            }
            Ok(())
        })
    }

    /// Removes a name. Whoever has the file open keeps it.
    pub fn delete(&mut self, process: Process, name: &str) -> Result<(), DiskError> {
        self.alive(process)?;
        let file: Arc<str> = name.into();
        self.operate(Request::new(process, Kind::Delete, &file), |disk| {
            disk.names.remove(name).ok_or(DiskError::NotFound)?;
            disk.entries.push(Entry::Gone(Arc::clone(&file)));
            Ok(())
        })
    }

    /// Locks the file, up to a level; the error is [`DiskError::Busy`] when others are in the way.
    pub fn lock(&mut self, handle: Handle, level: Level) -> Result<(), DiskError> {
        let granted = self.file_mut(handle)?.locks.lock(handle, level);
        granted.then_some(()).ok_or(DiskError::Busy)
    }

    /// Lowers a lock.
    pub fn unlock(&mut self, handle: Handle, to: Option<Level>) -> Result<(), DiskError> {
        self.file_mut(handle)?.locks.unlock(handle, to);
        Ok(())
    }

    /// Whether any handle has the file locked for writing.
    pub fn reserved(&self, handle: Handle) -> Result<bool, DiskError> {
        Ok(self.file(handle)?.locks.reserved())
    }

    /// Random bytes, of the machine's seed.
    pub fn fill_random(&mut self, bytes: &mut [u8]) {
        self.randomness.fill(bytes);
    }

    /// Gives one region of the memory that the processes with this file open share; makes it if told to.
    pub(crate) fn map(
        &mut self,
        handle: Handle,
        region: usize,
        words: usize,
        make: bool,
    ) -> Result<Option<Region>, DiskError> {
        let file = self.file_mut(handle)?;
        file.slots.join(handle);
        while make && file.memory.len() <= region {
            let zeros = std::iter::repeat_with(Default::default).take(words);
            file.memory.push(zeros.collect());
        }
        Ok(file.memory.get(region).cloned())
    }

    /// Lets go of the shared memory; the last one takes it along.
    pub(crate) fn unmap(&mut self, handle: Handle) {
        if let Some(open) = self.handles.get(&handle)
            && let Some(file) = self.files.get_mut(&open.inode)
            && file.slots.leave(handle)
        {
            file.memory.clear();
        }
    }

    /// Locks slots of the shared memory, together with others or alone.
    pub(crate) fn lock_slots(
        &mut self,
        handle: Handle,
        mask: u8,
        alone: bool,
    ) -> Result<(), DiskError> {
        let granted = self.file_mut(handle)?.slots.lock(handle, mask, alone);
        granted.then_some(()).ok_or(DiskError::Busy)
    }

    /// Releases slots.
    pub(crate) fn unlock_slots(&mut self, handle: Handle, mask: u8) -> Result<(), DiskError> {
        self.file_mut(handle)?.slots.unlock(handle, mask);
        Ok(())
    }

    fn change(
        &mut self,
        handle: Handle,
        kind: Kind,
        offset: u64,
        length: u64,
        act: impl FnOnce(&mut File),
    ) -> Result<(), DiskError> {
        let open = self.handle(handle)?;
        let name = Arc::clone(&self.files[&open.inode].name);
        let request = Request {
            inode: Some(open.inode),
            offset,
            length,
            ..Request::new(open.process, kind, &name)
        };
        self.operate(request, |disk| {
            let file = disk.files.get_mut(&open.inode).ok_or(DiskError::Dead)?;
            act(file);
            Ok(())
        })
    }

    /// Counts an operation, asks the policy, does as it says, and keeps the log.
    fn operate<T>(
        &mut self,
        request: Request<'_>,
        act: impl FnOnce(&mut Self) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let Request {
            process,
            kind,
            file,
            inode,
            offset,
            length,
        } = request;
        let number = self.operations;
        self.operations += 1;
        let operation = Operation {
            number,
            process,
            kind,
            file,
            offset,
            length,
        };
        let verdict = self
            .faults
            .as_mut()
            .map_or(Verdict::Proceed, |faults| faults(&operation));
        let result = match verdict {
            Verdict::Proceed => act(self),
            Verdict::Fail(failure) => Err(failure.into()),
            Verdict::FailAfter(failure) => act(self).and(Err(failure.into())),
            Verdict::FailAndForget(failure) => {
                if kind == Kind::Sync
                    && let Some(file) = inode.and_then(|inode| self.files.get_mut(&inode))
                {
                    file.forget();
                }
                Err(failure.into())
            }
            Verdict::StopBefore => {
                self.stopped = true;
                Err(DiskError::Stopped)
            }
            Verdict::StopAfter => {
                self.stopped = true;
                act(self).and(Err(DiskError::Stopped))
            }
        };
        if let Some(log) = &mut self.log {
            log.push(Done {
                number,
                process,
                kind,
                file: Arc::clone(file),
                offset,
                length,
                outcome: result.as_ref().map(|_| ()).map_err(|error| *error),
            });
        }
        result
    }

    fn alive(&self, process: Process) -> Result<(), DiskError> {
        if self.stopped {
            return Err(DiskError::Stopped);
        }
        let alive = self.processes.contains(&process);
        alive.then_some(()).ok_or(DiskError::Dead)
    }

    fn handle(&self, handle: Handle) -> Result<Open, DiskError> {
        if self.stopped {
            return Err(DiskError::Stopped);
        }
        self.handles.get(&handle).copied().ok_or(DiskError::Dead)
    }

    fn file(&self, handle: Handle) -> Result<&File, DiskError> {
        let inode = self.handle(handle)?.inode;
        self.files.get(&inode).ok_or(DiskError::Dead)
    }

    fn file_mut(&mut self, handle: Handle) -> Result<&mut File, DiskError> {
        let inode = self.handle(handle)?.inode;
        self.files.get_mut(&inode).ok_or(DiskError::Dead)
    }
}

/// An offset as an index. Whatever does not fit in memory is beyond the end of every file.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
