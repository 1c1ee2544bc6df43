//! Who is at the keyboard, as far as the system knows.

use std::env;
use std::fs;

use keyroll_rotate::Operator;

/// The login name of the real user, who called sudo, and the host; with what `--operator` said.
pub(crate) fn identify(given: Option<String>) -> Operator {
    let uid = rustix::process::getuid().as_raw();
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Operator {
        login: login(uid),
        sudo_user: env::var("SUDO_USER").ok().filter(|u| !u.is_empty()),
        host,
        given,
    }
}

/// The name of a user in passwd(5); its number where there is none.
fn login(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}
