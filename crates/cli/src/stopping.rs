//! Being asked to stop: Ctrl-C, SIGTERM from a service manager, SIGHUP when the terminal goes away.
//!
//! None of them may kill a keyroll that is in the middle of something. They are listened to on a thread of their own, from before
//! the first look: the main one may be waiting for an answer on the terminal.

use keyroll_rotate::{Control, Stop};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::complain;

/// A control that a signal asks to stop: the steps that run are finished, then it goes back.
pub(crate) fn control() -> Control {
    control_saying(
        "stopping: what runs is finished first, and what was changed is put back; do not kill keyroll",
    )
}

/// The same, for an operation that stops in its own way. Each signal says so; more of them change nothing.
pub(crate) fn control_saying(text: &'static str) -> Control {
    let control = Control {
        hook: hook(),
        ..Control::default()
    };
    if let Err(error) = listen(control.stop.clone(), text) {
        complain(&format!(
            "signals cannot be listened to ({error}): Ctrl-C ends keyroll where it stands, and `keyroll resume` goes on"
        ));
    }
    control
}

/// Returns when the signals are listened to, not before: until then one would end keyroll where it stands.
fn listen(stop: Stop, text: &'static str) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let mut signals = {
        let _entered = runtime.enter();
        [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]
    };
    let listen = move || {
        runtime.block_on(async {
            loop {
                one_of(&mut signals).await;
                stop.request();
                complain(text);
            }
        });
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)
        .map(drop)
}

async fn one_of([interrupt, terminate, hangup]: &mut [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(feature = "fault-injection")]
fn hook() -> Option<std::sync::Arc<dyn Fn(keyroll_rotate::Moment) -> bool + Send + Sync>> {
    crate::fault::hook()
}

#[cfg(not(feature = "fault-injection"))]
fn hook() -> Option<std::sync::Arc<dyn Fn(keyroll_rotate::Moment) -> bool + Send + Sync>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_right_after_the_control_was_made_asks_to_stop_and_does_not_kill() {
        let control = control();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT)
            .unwrap();
        let began = std::time::Instant::now();
        while !control.stop.requested() {
            assert!(began.elapsed().as_secs() < 10, "nobody listened");
            std::thread::yield_now();
        }
    }
}
