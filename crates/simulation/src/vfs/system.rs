//! The functions of the file system as a whole.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::ffi;

use super::file::{OpenFile, SimulatedFile};
use super::{Mounted, Slot, locked};
use crate::disk::{DiskError, Opening};

/// Longer names than any journal has.
const LONGEST_NAME: c_int = 512;

/// From noon of 24 November 4714 BC, `SQLite`'s origin of time, to 1970, in milliseconds.
const JULIAN_EPOCH: i64 = 210_866_760_000_000;

/// All that is the same in every slot.
pub(super) fn table() -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(size_of::<SimulatedFile>()).unwrap_or(c_int::MAX),
        mxPathname: LONGEST_NAME,
        pNext: std::ptr::null_mut(),
        zName: std::ptr::null(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// The slot behind the pointer, and its disk if it has one.
///
/// # Safety
///
/// `vfs` is of a [`Slot`].
unsafe fn mounted(vfs: *mut ffi::sqlite3_vfs) -> (&'static Slot, Option<Mounted>) {
    // SAFETY: by the caller's promise `pAppData` was set to the slot, which lives forever.
    let slot: &'static Slot = unsafe { &*(*vfs).pAppData.cast::<Slot>() };
    (slot, locked(&slot.mounted).clone())
}

/// # Safety
///
/// `name` is null or a string with a zero at its end that lives as long as it is used.
unsafe fn text<'a>(name: *const c_char) -> Option<&'a str> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_str().ok()
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes our own table back, a string or null, and room for `szOsFile` bytes. Without methods it
    // will not call the file again, whatever else happens here.
    let ((slot, mounted), name) = unsafe {
        (*file).pMethods = std::ptr::null();
        (self::mounted(vfs), (!name.is_null()).then(|| text(name)))
    };
    let (Some(Mounted { disk, process }), Some(name)) = (mounted, name.unwrap_or(Some(""))) else {
        return ffi::SQLITE_CANTOPEN;
    };
    let has = |flag| flags & flag != 0;
    let opening = if has(ffi::SQLITE_OPEN_CREATE) && has(ffi::SQLITE_OPEN_EXCLUSIVE) {
        Opening::CreateNew
    } else if has(ffi::SQLITE_OPEN_CREATE) {
        Opening::Create
    } else {
        Opening::Existing
    };
    let handle = {
        let mut disk = locked(&disk);
        let handle = disk.open(process, (!name.is_empty()).then_some(name), opening);
        if handle.is_ok() && !name.is_empty() && has(ffi::SQLITE_OPEN_DELETEONCLOSE) {
            // As Unix does it: the name goes at once, the file with its last handle.
            let _ = disk.delete(process, name);
        }
        handle
    };
    let handle = match handle {
        Ok(handle) => handle,
        Err(DiskError::Full) => return ffi::SQLITE_FULL,
        Err(_) => return ffi::SQLITE_CANTOPEN,
    };
    let journals =
        ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
    let open = OpenFile {
        slot,
        disk: Arc::clone(&disk),
        process,
        handle,
        regions: Vec::new(),
        sync_directory: has(ffi::SQLITE_OPEN_CREATE) && has(journals),
    };
    slot.open_files.fetch_add(1, Ordering::AcqRel);
    // SAFETY: there is room for a `SimulatedFile` at `file`, aligned as SQLite aligns everything; `out_flags` may be
    // null.
    unsafe {
        SimulatedFile::put(file, open);
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    // SAFETY: SQLite passes our own table back, and a string.
    let ((_, mounted), name) = unsafe { (self::mounted(vfs), text(name)) };
    let (Some(Mounted { disk, process }), Some(name)) = (mounted, name) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    let mut disk = locked(&disk);
    match disk.delete(process, name) {
        Ok(()) if sync_directory & 1 != 0 && disk.sync_directory(process).is_err() => {
            ffi::SQLITE_IOERR_DIR_FSYNC
        }
        Ok(()) => ffi::SQLITE_OK,
        Err(DiskError::NotFound) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    result: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes our own table back, and a string.
    let ((_, mounted), name) = unsafe { (self::mounted(vfs), text(name)) };
    let (Some(Mounted { disk, process }), Some(name)) = (mounted, name) else {
        return ffi::SQLITE_IOERR_ACCESS;
    };
    let Ok(length) = locked(&disk).length_of(process, name) else {
        return ffi::SQLITE_IOERR_ACCESS;
    };
    // An empty file does not exist for SQLite on Unix either: it is a journal whose creation was cut short.
    let exists = match length {
        Some(0) => flags != ffi::SQLITE_ACCESS_EXISTS,
        Some(_) => true,
        None => false,
    };
    // SAFETY: SQLite passes room for the answer.
    unsafe { *result = c_int::from(exists) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a string.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.len() > usize::try_from(room).unwrap_or(0) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has `room` bytes, no fewer than are copied; the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(
    vfs: *mut ffi::sqlite3_vfs,
    length: c_int,
    out: *mut c_char,
) -> c_int {
    let wanted = usize::try_from(length).unwrap_or(0);
    // SAFETY: SQLite passes our own table back, and room for this many bytes, which may be uninitialized: zeros first.
    let ((_, mounted), bytes) = unsafe {
        std::ptr::write_bytes(out, 0, wanted);
        let bytes = std::slice::from_raw_parts_mut(out.cast::<u8>(), wanted);
        (self::mounted(vfs), bytes)
    };
    if let Some(Mounted { disk, .. }) = mounted {
        locked(&disk).fill_random(bytes);
    }
    length
}

unsafe extern "C" fn sleep(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: SQLite passes our own table back.
    if let (_, Some(Mounted { disk, .. })) = unsafe { mounted(vfs) } {
        locked(&disk).wait(microseconds.into());
    }
    microseconds
}

unsafe extern "C" fn current_time_int64(
    vfs: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes our own table back.
    let (_, Some(Mounted { disk, .. })) = (unsafe { mounted(vfs) }) else {
        return ffi::SQLITE_ERROR;
    };
    let milliseconds = locked(&disk).now().div_euclid(1000) + JULIAN_EPOCH;
    // SAFETY: SQLite passes room for the answer.
    unsafe { *out = milliseconds };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let mut milliseconds = 0;
    // SAFETY: the same table, and room of our own.
    let code = unsafe { current_time_int64(vfs, &raw mut milliseconds) };
    #[expect(clippy::cast_precision_loss, reason = "the precision of this call")]
    let days = milliseconds as f64 / 86_400_000.0;
    // SAFETY: SQLite passes room for the answer.
    unsafe { *out = days };
    code
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
