//! Connections into the network of a container, over sockets that its door hands out.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::{TcpSocket, UnixStream};

use super::connection::HttpConnection;
use crate::connection::open_socket;

/// Most sockets that a door hands out at once.
const MOST_SOCKETS: usize = 8;

/// The sockets of one door.
#[derive(Debug)]
pub(crate) struct Sockets {
    door: PathBuf,
    address: SocketAddr,
    /// Unconnected ones: a connection before its request would keep a worker of the container waiting.
    stock: Mutex<VecDeque<OwnedFd>>,
}

impl Sockets {
    pub(crate) fn new(door: PathBuf, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { door, address, stock: Mutex::default() }
    }

    /// Connects to the container.
    pub(crate) async fn connect(&self) -> io::Result<HttpConnection> {
        let socket = match self.take() {
            Some(socket) => socket,
            None => self.ask().await?,
        };
        let socket = TcpSocket::from_std_stream(TcpStream::from(socket));
        HttpConnection::over(socket.connect(self.address).await?).await
    }

    fn take(&self) -> Option<OwnedFd> {
        // A poisoned lock only says that another thread panicked; the sockets are still sockets.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Asks the door for more, and takes one of them.
    async fn ask(&self) -> io::Result<OwnedFd> {
        let door = open_socket(&self.door).await?;
        let mut sockets = receive(&door).await?;
        let socket = sockets
            .pop_front()
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the door gave no socket"))?;
        self.stock.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets);
        Ok(socket)
    }
}

async fn receive(door: &UnixStream) -> io::Result<VecDeque<OwnedFd>> {
    door.async_io(Interest::READABLE, || {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(door, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        Ok(rights.flatten().collect())
    })
    .await
}
