//! Against a real `PostgreSQL` server, one for each test.
//!
//! The server's binaries come from the system's packages (`postgresql-15` on Debian 12). Where there are none the tests say
//! so and pass, unless `KEYROLL_CONTAINER_TESTS=1`.

mod backends;
mod login;
mod password;
mod rows;
mod secrecy;
mod settings;
mod support;
mod through;
