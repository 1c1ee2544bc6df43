//! Passwords, the lock after wrong ones, and sessions.

use crate::db::{Lost, Pool};
use crate::tokens::{self, Access, Refresh};

const BCRYPT_COST: u32 = 10;
/// A hash that no password has, so that an unknown e-mail address takes as long as a wrong password.
const NOBODY: &str = "$2b$10$7EqJtq98hPqEX7fNZaFWoOhi5Y5bE1mR0Zb0mC5kxw1e5dWk3m7bG";

/// A user as far as a login needs one.
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) role: String,
}

/// What came of a login.
pub(crate) enum Login {
    Welcome(User),
    Wrong,
    Locked,
}

/// The bcrypt hash of `password`, made on a thread where it holds nobody up.
pub(crate) async fn hash(password: String) -> Result<String, String> {
    tokio::task::spawn_blocking(move || bcrypt::hash(password, BCRYPT_COST))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())
}

/// Whether `hash` is one of `password`.
pub(crate) async fn matches(password: String, hash: String) -> bool {
    tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false))
        .await
        .unwrap_or(false)
}

/// Checks a password. `limit` wrong ones in a row lock the account for 15 minutes, also for the right one; a right one
/// starts the count again.
pub(crate) async fn login(
    pool: &Pool,
    email: &str,
    password: String,
    limit: i32,
) -> Result<Login, Lost> {
    let found = pool
        .query(
            r#"SELECT "id", "email", "role", "passwordHash", coalesce("lockedUntil" > now(), false)
               FROM "User" WHERE "email" = $1"#,
            &[&email],
        )
        .await?;
    let Some(row) = found.first() else {
        matches(password, NOBODY.to_owned()).await;
        return Ok(Login::Wrong);
    };
    if row.get(4) {
        return Ok(Login::Locked);
    }
    let user = User {
        id: row.get(0),
        email: row.get(1),
        role: row.get(2),
    };
    if matches(password, row.get(3)).await {
        pool.query(
            r#"UPDATE "User" SET "failedLogins" = 0, "lockedUntil" = NULL WHERE "id" = $1 AND "failedLogins" > 0"#,
            &[&user.id],
        )
        .await?;
        return Ok(Login::Welcome(user));
    }
    pool.query(
        r#"UPDATE "User" SET "failedLogins" = "failedLogins" + 1,
             "lockedUntil" = CASE WHEN "failedLogins" + 1 >= $2 THEN now() + interval '15 minutes' ELSE "lockedUntil" END
           WHERE "id" = $1"#,
        &[&user.id, &limit],
    )
    .await?;
    Ok(Login::Wrong)
}

/// Opens a session and returns its access and refresh token.
pub(crate) async fn open_session(
    pool: &Pool,
    user: &User,
    keys: &Keys,
    agent: &str,
) -> Result<(String, String), String> {
    let sid = tokens::uuid()?;
    let refresh = tokens::sign(
        &Refresh {
            sub: user.id.clone(),
            sid: sid.clone(),
            jti: tokens::uuid()?,
            iat: tokens::now(),
            exp: tokens::now() + tokens::REFRESH_SECONDS,
        },
        &keys.refresh,
    )?;
    let kept = tokens::sha256(&refresh);
    pool.query(
        r#"INSERT INTO "AuthSession" ("id", "userId", "refreshTokenHash", "userAgent", "expiresAt")
           VALUES ($1::text::uuid, $2, $3, $4, now() + interval '7 days')"#,
        &[&sid, &user.id, &kept, &agent],
    )
    .await
    .map_err(|e| e.to_string())?;
    pool.query(
        r#"INSERT INTO "AuditLog" ("action", "actor") VALUES ('login', $1)"#,
        &[&user.email],
    )
    .await
    .map_err(|e| e.to_string())?;
    Ok((access(user, &sid, keys)?, refresh))
}

/// The user and the session of a refresh token: signature, expiry, row and hash must all agree. With `check` off (a fault)
/// the row only has to be there.
pub(crate) async fn session(
    pool: &Pool,
    token: &str,
    keys: &Keys,
    check: bool,
) -> Result<Option<(User, String)>, Lost> {
    let claims: Option<Refresh> = if check {
        tokens::verify(token, &keys.refresh)
    } else {
        tokens::unchecked(token)
    };
    let Some(claims) = claims else {
        return Ok(None);
    };
    let rows = pool
        .query(
            r#"SELECT u."id", u."email", u."role" FROM "AuthSession" s JOIN "User" u ON u."id" = s."userId"
               WHERE s."id"::text = $1
                 AND ($3 OR (s."refreshTokenHash" = $2 AND s."revokedAt" IS NULL AND s."expiresAt" > now()))"#,
            &[&claims.sid, &tokens::sha256(token), &!check],
        )
        .await?;
    Ok(rows.first().map(|row| {
        let user = User {
            id: row.get(0),
            email: row.get(1),
            role: row.get(2),
        };
        (user, claims.sid)
    }))
}

/// A new access token for a session.
pub(crate) fn access(user: &User, sid: &str, keys: &Keys) -> Result<String, String> {
    tokens::sign(
        &Access {
            sub: user.id.clone(),
            sid: sid.to_owned(),
            email: user.email.clone(),
            role: user.role.clone(),
            iat: tokens::now(),
            exp: tokens::now() + tokens::ACCESS_SECONDS,
        },
        &keys.access,
    )
}

/// The two signing keys. Deliberately without `Debug`.
pub(crate) struct Keys {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_matches_its_password_alone() {
        let hash = hash("right".to_owned()).await.unwrap();
        assert!(matches("right".to_owned(), hash.clone()).await);
        assert!(!matches("wrong".to_owned(), hash).await);
    }

    #[test]
    fn nobody_has_a_hash_that_takes_as_long_as_any_other() {
        assert!(!bcrypt::verify("anything", NOBODY).expect("well-formed"));
    }
}
