//! The tables, named as Prisma names them: quoted, in mixed case, timestamps without a zone.

use std::time::{Duration, Instant};

use crate::db::Pool;

const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS "User" (
    "id"           TEXT PRIMARY KEY,
    "email"        TEXT NOT NULL UNIQUE,
    "passwordHash" TEXT NOT NULL,
    "role"         TEXT NOT NULL DEFAULT 'USER',
    "failedLogins" INTEGER NOT NULL DEFAULT 0,
    "lockedUntil"  TIMESTAMP(3),
    "createdAt"    TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS "AuthSession" (
    "id"               UUID PRIMARY KEY,
    "userId"           TEXT NOT NULL REFERENCES "User" ("id") ON DELETE CASCADE,
    "refreshTokenHash" TEXT NOT NULL,
    "userAgent"        TEXT,
    "ipAddress"        TEXT,
    "expiresAt"        TIMESTAMP(3) NOT NULL,
    "revokedAt"        TIMESTAMP(3),
    "createdAt"        TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS "WorkerHeartbeat" (
    "worker" TEXT PRIMARY KEY,
    "beatAt" TIMESTAMP(3) NOT NULL
);
CREATE TABLE IF NOT EXISTS "Setting" (
    "key"       TEXT PRIMARY KEY,
    "value"     TEXT,
    "updatedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS "WebhookEvent" (
    "provider"   TEXT NOT NULL,
    "id"         TEXT NOT NULL,
    "receivedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY ("provider", "id")
);
CREATE TABLE IF NOT EXISTS "AuditLog" (
    "id"        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "action"    TEXT NOT NULL,
    "actor"     TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"#;

/// Makes the tables that are not there. Waits up to 15 seconds for the database, as migration tools do.
pub(crate) async fn migrate() -> Result<(), String> {
    let pool = Pool::from_url()?;
    let limit = Instant::now() + Duration::from_secs(15);
    loop {
        match pool.batch(TABLES).await {
            Ok(()) => {
                println!("All migrations have been successfully applied.");
                return Ok(());
            }
            Err(why) if Instant::now() > limit => return Err(why.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
