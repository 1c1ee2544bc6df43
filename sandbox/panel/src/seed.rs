//! `npm run prisma:seed`: the first administrator.
//!
//! Two habits are found in the field. `update` writes the hash of `ADMIN_PASSWORD` also for an administrator who exists;
//! `noop` is the common upsert with `update: {}`, which says the same words and changes nothing. `PANEL_SEED_MODE` chooses.

use std::time::Duration;

use crate::accounts;
use crate::db::Pool;
use crate::faults::Fault;
use crate::tokens;

pub(crate) async fn run() -> Result<(), String> {
    let mode = std::env::var("PANEL_SEED_MODE").unwrap_or_else(|_| "update".to_owned());
    if Fault::SeedHang.is_set() {
        println!("Seeding ...");
        std::future::pending::<()>().await;
    }
    while Fault::SeedWaits.is_set() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if mode == "fail" || Fault::SeedExit1.is_set() {
        return Err("the seed command failed".to_owned());
    }
    let update = match mode.as_str() {
        "update" => !Fault::SeedNoop.is_set(),
        "noop" => false,
        other => {
            return Err(format!(
                "PANEL_SEED_MODE is {other:?}: update, noop or fail"
            ));
        }
    };
    let email = crate::required("ADMIN_EMAIL")?;
    let password = crate::required("ADMIN_PASSWORD")?;
    let pool = Pool::from_url()?;

    let stored = pool
        .query(
            r#"SELECT "passwordHash" FROM "User" WHERE "email" = $1"#,
            &[&email],
        )
        .await
        .map_err(|e| e.to_string())?;
    match stored.first() {
        None => {
            let hash = accounts::hash(password).await?;
            pool.query(
                r#"INSERT INTO "User" ("id", "email", "passwordHash", "role") VALUES ($1, $2, $3, 'ADMIN')
                   ON CONFLICT ("email") DO NOTHING"#,
                &[&tokens::uuid()?, &email, &hash],
            )
            .await
            .map_err(|e| e.to_string())?;
        }
        Some(row) if update && !accounts::matches(password.clone(), row.get(0)).await => {
            let hash = accounts::hash(password).await?;
            pool.query(
                r#"UPDATE "User" SET "passwordHash" = $1 WHERE "email" = $2"#,
                &[&hash, &email],
            )
            .await
            .map_err(|e| e.to_string())?;
        }
        Some(_) => {}
    }
    println!("The database has been seeded: {email} is an administrator.");
    Ok(())
}
