//! Whether a stored hash is one of a certain password, without logging in.
//!
//! A login answers the same question, and leaves something: a session in the application, or one wrong login more on its count.

use keyroll_secret::Secret;

/// Whether this is a hash of the password. `None` for a kind that is not known here; then only the application can tell.
///
/// Known: bcrypt (`$2a$`, `$2b$`, `$2y$`), which Node panels use. Blocks as long as the hash is expensive, some hundred milliseconds.
pub fn is_hash_of(stored: &Secret, password: &Secret) -> Option<bool> {
    let bcrypt = ["$2a$", "$2b$", "$2y$"];
    if !bcrypt.iter().any(|kind| stored.expose().starts_with(kind)) {
        return None;
    }
    bcrypt::verify(password.expose(), stored.expose()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bcrypt_hash_is_told_from_one_of_another_password_and_other_kinds_are_not_judged() {
        // OpenBSD's own test vector for "U*U" ($2a$); the others have the same bytes for ASCII.
        for kind in ["$2a$", "$2b$", "$2y$"] {
            let hash = format!("{kind}05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
            let judged =
                |password: &str| is_hash_of(&Secret::new(hash.clone()), &Secret::new(password));
            assert_eq!(judged("U*U"), Some(true), "{kind}");
            assert_eq!(judged("U*V"), Some(false), "{kind}");
        }
        for other in [
            "$argon2id$v=19$m=16,t=2,p=1$YQ$Yg",
            "$2b$05$short",
            "",
            "plain",
        ] {
            assert_eq!(
                is_hash_of(&Secret::new(other), &Secret::new("U*U")),
                None,
                "{other}"
            );
        }
    }
}
