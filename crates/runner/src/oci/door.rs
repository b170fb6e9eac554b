//! The door of a container that has a network of its own: a process between that network and the host's.
//!
//! It hands the server sockets that were made inside, over which the server reaches what listens on the container's loopback and
//! nobody else does. And it lets the container reach the server, where it may: connections to one address inside are carried to
//! the server's. It ends with the warden that started it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::{container_of, removal};
use crate::shell;
use crate::supervisor::directory::WorkloadDirectory;

/// Name of the hidden sub-command whose body is [`open_door`]; its arguments are the workload's directory and the host pid of the
/// container's first process.
pub const SUBCOMMAND: &str = "open-door";

/// Sockets that one connection to the door is given.
pub const SOCKETS_AT_ONCE: usize = 8;

/// Connections from inside that are carried at once; more are closed.
const MOST_CARRIED: usize = 256;

/// A way into a container's own network, for the server alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The Unix socket at which it listens, in a folder that the container does not see: each connection is sent one byte with
    /// [`SOCKETS_AT_ONCE`] unconnected TCP sockets of the container's network, and closed.
    pub socket: PathBuf,
    /// The way to the server, where the container has one.
    pub way_out: Option<WayOut>,
}

/// Where a container reaches the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayOut {
    /// The address inside: one of the container's loopback.
    pub inside: SocketAddrV4,
    /// The server's address on the host.
    pub server: SocketAddr,
}

/// Keeps a door open until its standard input ends: the body of the hidden sub-command `open-door`.
pub fn open_door(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(directory), Some(pid)) = (arguments.next(), arguments.next()) else { return ExitCode::from(2) };
    let Some(pid) = pid.to_str().and_then(|pid| pid.parse().ok()) else { return ExitCode::from(2) };
    let opened = described(Path::new(&directory)).and_then(|door| open(&door, pid));
    if let Err(error) = opened {
        // A line of the container's log.
        let _ = writeln!(io::stdout(), "modelyard: the container's network cannot be entered: {error}");
        return ExitCode::FAILURE;
    }
    // Nothing is written into it: it ends with the warden.
    let _ = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn described(directory: &Path) -> io::Result<Door> {
    let spec = removal::contained(&WorkloadDirectory::new(directory.to_owned()))?;
    let door = spec.as_ref().and_then(container_of).and_then(|container| container.door.clone());
    door.ok_or_else(|| io::Error::other("the workload has no door"))
}

/// Opens the door; threads of this process serve it. Called while there is one thread.
fn open(door: &Door, pid: u32) -> io::Result<()> {
    let namespace = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
    let own = |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}"));
    let (network, user) = (namespace("net")?, namespace("user")?);
    if network.metadata()?.ino() == own("net")?.ino() {
        return Err(io::Error::other("it is the host's own"));
    }
    let folder = door.socket.parent().ok_or_else(|| io::Error::other("the door's socket has no folder"))?;
    let name = door.socket.file_name().ok_or_else(|| io::Error::other("the door's socket has no name"))?;
    // A socket's address must not be longer than 107 bytes, a path may.
    std::env::set_current_dir(folder)?;
    let listener = UnixListener::bind(name)?;
    if user.metadata()?.ino() != own("user")?.ino() {
        // The network of an ordinary user's container belongs to a user namespace, which a process enters whole.
        setns(user, CloneFlags::CLONE_NEWUSER)?;
    }
    let (sender, inside) = channel();
    let address = door.way_out.as_ref().map(|way| way.inside);
    spawn("inside", move || serve_inside(network, &listener, address, &sender))?;
    let entered = inside.recv().map_err(io::Error::other)??;
    // This thread has stayed in the host's network, and so have those that it starts.
    if let (Some(way), Some(listener)) = (&door.way_out, entered) {
        let server = way.server;
        spawn("way-out", move || carry_all(&listener, server))?;
    }
    Ok(())
}

/// Enters the network with this thread, listens for the container's connections, and hands out sockets.
fn serve_inside(
    network: File,
    door: &UnixListener,
    address: Option<SocketAddrV4>,
    sender: &Sender<io::Result<Option<TcpListener>>>,
) {
    let entered = setns(network, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    let listener = entered.and_then(|()| address.map(TcpListener::bind).transpose());
    let has_entered = listener.is_ok();
    if sender.send(listener).is_err() || !has_entered {
        return;
    }
    for client in door.incoming().flatten() {
        if let Err(error) = hand_out(&client) {
            let _ = writeln!(io::stderr(), "modelyard: sockets cannot be handed out: {error}");
        }
    }
}

fn hand_out(client: &UnixStream) -> io::Result<()> {
    let socket = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
    };
    let sockets: Vec<OwnedFd> = (0..SOCKETS_AT_ONCE).map(|_| socket()).collect::<Result<_, _>>()?;
    let handles: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    shell::send(client, b"s", &handles)
}

/// Carries each connection from inside to the server.
fn carry_all(listener: &TcpListener, server: SocketAddr) {
    let carried = Arc::new(AtomicUsize::new(0));
    for inner in listener.incoming().flatten() {
        if carried.fetch_add(1, Ordering::AcqRel) >= MOST_CARRIED {
            carried.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let count = carried.clone();
        // Without a thread for it the connection is closed, and the client tries again.
        let _ = spawn("carrier", move || {
            // A server that is being restarted answers the client's next try.
            let _ = carry(&inner, server);
            count.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn carry(inner: &TcpStream, server: SocketAddr) -> io::Result<()> {
    let outer = TcpStream::connect(server)?;
    for stream in [inner, &outer] {
        stream.set_nodelay(true)?;
    }
    let (from_server, to_inner) = (outer.try_clone()?, inner.try_clone()?);
    let back = spawn("answers", move || copy(&from_server, &to_inner))?;
    copy(inner, &outer);
    let _ = back.join();
    Ok(())
}

/// Copies one direction to its end, and passes the end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_ok() {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        // Broken on one side, so that the other direction has no use either.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(128 * 1024).spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_hands_out_sockets_that_can_connect() {
        let (server, client) = UnixStream::pair().unwrap();
        hand_out(&server).unwrap();
        let (count, handles) = shell::receive(&client, &mut [0; 4]).unwrap();
        assert_eq!((count, handles.len()), (1, SOCKETS_AT_ONCE));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let SocketAddr::V4(address) = address else { panic!("{address}") };
        // The sockets do not block: the connection is under way, or there.
        let connected = rustix::net::connect(&handles[0], &address);
        assert!(matches!(connected, Ok(()) | Err(rustix::io::Errno::INPROGRESS)), "{connected:?}");
        listener.accept().unwrap();
    }

    #[test]
    fn connections_are_carried_both_ways_to_their_ends() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let inside = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = inside.local_addr().unwrap();
        std::thread::spawn(move || carry_all(&inside, address));
        let mut client = TcpStream::connect(door).unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        accepted.write_all(b"answer").unwrap();
        drop(accepted);
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
}
