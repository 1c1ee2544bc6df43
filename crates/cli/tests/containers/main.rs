//! The program on real stacks: a container engine, compose, a database, an application.
//!
//! One program for all of it, so that stacks of different files run side by side: a test mostly waits for its containers.
//! `cargo test --test containers refusals::` runs those of one file.

mod canary;
mod common;
mod node;
mod recovery;
mod webhooks;

mod cadence;
mod compose_v1;
mod container_faults;
mod endings;
mod engine;
mod env_file_faults;
mod everything;
mod exams;
mod failures;
mod faults;
mod http_faults;
mod integration;
mod interrupts;
mod leaks;
mod makers;
mod own_files;
mod peer;
mod postgres_faults;
mod proxy;
mod recover;
mod refusals;
mod restore;
mod rotation;
mod scripts;
mod stream;
mod tokens;
