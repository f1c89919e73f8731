use std::fs::File;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use tun_rs::{DeviceBuilder, SyncDevice};

/// The one device in each namespace.
const DEVICE: &str = "link0";
/// The largest packet. Below what any path on a real network takes.
const MTU: u16 = 1400;

/// A network namespace. It has no name, so it is gone with the last process, thread and handle in it, whatever becomes
/// of us.
#[derive(Debug)]
pub(super) struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new one, with nothing in it but a loopback interface that is down.
    pub(super) fn create() -> io::Result<Self> {
        // A thread of its own leaves the namespace of everybody else; it ends, and the handle keeps what it made.
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let handle = File::open("/proc/thread-self/ns/net")?;
            Ok(Self { handle })
        })
    }

    /// From now on this thread, and what it starts, is in the namespace.
    pub(super) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.handle, CloneFlags::CLONE_NEWNET)?)
    }

    /// Does something in the namespace, on a thread of its own.
    pub(super) fn inside<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            self.enter()?;
            act()
        })
    }

    /// Gives the namespace its address. What is sent to another one comes out of the device, and what is written into
    /// the device arrives.
    pub(super) fn connect(&self, address: Ipv4Addr) -> io::Result<SyncDevice> {
        self.inside(|| {
            let device = DeviceBuilder::new().name(DEVICE).build_sync()?;
            device.set_nonblocking(true)?;
            // All addresses but our own are behind the device.
            ip(&format!(
                "link set lo up\naddress add {address}/16 dev {DEVICE}\nlink set {DEVICE} mtu {MTU} up\n"
            ))?;
            Ok(device)
        })
    }
}

fn on_a_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| match scope.spawn(act).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Commands for iproute2, one in each line.
fn ip(commands: &str) -> io::Result<()> {
    let mut process = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("the command ip: {error}")))?;
    if let Some(mut input) = process.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = process.wait_with_output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the command ip: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}
