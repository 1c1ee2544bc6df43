//! Extended attributes and POSIX ACLs (which Linux keeps as attributes).

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    XattrFlags, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fremovexattr, fsetxattr,
};
use rustix::io::Errno;

const ACL: &str = "system.posix_acl_access";

/// Removes an ACL that a new file has inherited from its directory.
pub(crate) fn clear_acl(file: BorrowedFd<'_>) -> io::Result<()> {
    match fremovexattr(file, ACL) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Gives `to` every attribute of `from`; on failure the attribute's name and the reason.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), (String, String)> {
    for name in names(from).map_err(|e| ("list".to_owned(), e.to_string()))? {
        let fail = |e: Errno| (name.clone(), io::Error::from(e).to_string());
        // They vouch for the content, which changes.
        if matches!(name.as_str(), "security.ima" | "security.evm") {
            return Err((name, "it signs the old content".into()));
        }
        let value = get(from, &name).map_err(fail)?;
        // A label that the new file has by itself, as SELinux gives it, often may not be set.
        if get(to, &name).is_ok_and(|own| own == value) {
            continue;
        }
        fsetxattr(to, name.as_str(), &value, XattrFlags::empty()).map_err(fail)?;
    }
    Ok(())
}

fn names(file: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let size = match flistxattr_query(file) {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut list = vec![0_u8; size];
    if size > 0 {
        let length = flistxattr(file, list.as_mut_slice())?;
        list.truncate(length);
    }
    Ok(list
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

fn get(file: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0_u8; fgetxattr_query(file, name)?];
    if !value.is_empty() {
        let length = fgetxattr(file, name, value.as_mut_slice())?;
        value.truncate(length);
    }
    Ok(value)
}
