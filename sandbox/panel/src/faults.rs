//! Faults that a test switches on: a file with the fault's name in a directory that compose mounts into the containers.
//! Looked up at every use, so a test can break and mend a running stack.

use std::path::Path;

const DIRECTORY: &str = "/run/panel-faults";

/// What can be made to go wrong. The name of the file is in [`Fault::name`].
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// `POST /api/auth/login` answers 500.
    Login500,
    /// `GET /api/health` answers 503.
    Health503,
    /// The pages answer 500.
    Page500,
    /// `seed` says that it seeded and changes nothing.
    SeedNoop,
    /// `seed` exits 1.
    SeedExit1,
    /// `seed` never ends.
    SeedHang,
    /// `seed` begins once the fault is cleared.
    SeedWaits,
    /// `api` exits 1 at start.
    StartFail,
    /// `worker` exits 1 at start.
    WorkerStartFail,
    /// Any well-formed refresh token is accepted, also a revoked one.
    RefreshAcceptAny,
    /// Any well-formed access token is accepted, whoever signed it.
    AccessAcceptAny,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Login500 => "login-500",
            Self::Health503 => "health-503",
            Self::Page500 => "page-500",
            Self::SeedNoop => "seed-noop",
            Self::SeedExit1 => "seed-exit1",
            Self::SeedHang => "seed-hang",
            Self::SeedWaits => "seed-waits",
            Self::StartFail => "start-fail",
            Self::WorkerStartFail => "worker-start-fail",
            Self::RefreshAcceptAny => "refresh-accept-any",
            Self::AccessAcceptAny => "access-accept-any",
        }
    }

    /// Whether the fault is switched on right now.
    pub(crate) fn is_set(self) -> bool {
        Path::new(DIRECTORY).join(self.name()).exists()
    }
}
