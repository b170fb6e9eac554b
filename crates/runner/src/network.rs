//! The network that the hosts of an isolated job share: a namespace with nothing but loopback. Each host's supervisor is in it,
//! so that it lasts as long as any of them, and goes with the last.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Puts this process, which must have one thread, into the network of the peers that are written down at `place`; the first of
/// them makes it. The error is a sentence for the user.
pub(crate) fn join(place: &Path) -> Result<(), String> {
    let joined = try_to_join(place);
    joined
        .map_err(|error| format!("The network that the job's hosts share cannot be made or joined: {error}."))
}

fn try_to_join(place: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(place)?;
    // Held until the file is closed: one host makes the network, the others find it.
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if !enter_any(&text)? {
        make()?;
    }
    let own = std::fs::metadata("/proc/self/ns/net")?;
    writeln!(file, "{} {}", std::process::id(), own.ino())
}

/// Enters the network of the first peer that still lives; the lines have its process and the number of its namespace.
fn enter_any(lines: &str) -> io::Result<bool> {
    for line in lines.lines() {
        let mut numbers = line.split(' ').filter_map(|number| number.parse::<u64>().ok());
        if let (Some(process), Some(namespace)) = (numbers.next(), numbers.next())
            && enter(process, namespace)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn enter(process: u64, namespace: u64) -> io::Result<bool> {
    let open = |name: &str| File::open(format!("/proc/{process}/ns/{name}"));
    let (net, user) = match (open("net"), open("user")) {
        (Ok(net), Ok(user)) => (net, user),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    // Another process may have got the number of one that has ended.
    if net.metadata()?.ino() != namespace {
        return Ok(false);
    }
    if user.metadata()?.ino() != std::fs::metadata("/proc/self/ns/user")?.ino() {
        setns(user, CloneFlags::CLONE_NEWUSER)?;
    }
    setns(net, CloneFlags::CLONE_NEWNET)?;
    Ok(true)
}

/// Makes a network. An ordinary user may do so in a user namespace of its own, in which it stays who it is.
fn make() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNET)?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{0} {0} 1", user.as_raw()))?;
        std::fs::write("/proc/self/gid_map", format!("{0} {0} 1", group.as_raw()))?;
    }
    bring_loopback_up()
}

/// Asks the kernel, over its socket for such things, to switch on interface 1, which is the loopback of every new network.
fn bring_loopback_up() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 5;
    const LOOPBACK: i32 = 1;
    const UP: u32 = 1;
    const LENGTH_BYTES: u32 = 32;

    let mut message = Vec::new();
    message.extend(LENGTH_BYTES.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // Number of the message, and the sender, which the kernel fills in.
    message.extend([0; 8]);
    // Any family and any type.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    // Of the flags, only that one is changed.
    message.extend(UP.to_ne_bytes());

    // The first protocol, which is the one for interfaces, has the number 0.
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // The answer is an error message behind its header; 0 says that all is well.
    let code = answer.get(16..20).filter(|_| length >= 20).and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}
