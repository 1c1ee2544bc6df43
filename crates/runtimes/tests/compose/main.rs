//! Against a real engine and a real compose, with stacks of their own. They run when `KEYROLL_CONTAINER_TESTS=1`.

mod config;
mod exec;
mod exec_stream;
mod look;
mod recreate;
mod support;
mod v1;
mod wait;
