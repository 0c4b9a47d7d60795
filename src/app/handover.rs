//! Zero-downtime restart: the listening sockets go to the next process, requests stay where they are.
//!
//! The running process listens on `upgrade.sock` in its data directory (mode 0600). A successor connects, gets the two
//! sockets as file descriptors, starts on them, and says so; then the old process stops accepting, finishes what it has
//! and exits. Connections that the kernel has not handed out are accepted by the successor: nothing is refused between
//! the two. If the successor dies before it says so, nothing has happened.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::sync::watch;

/// The socket's name in the data directory.
const SOCKET: &str = "upgrade.sock";
/// What goes with the descriptors: a name and a version of this protocol.
const HELLO: &[u8; 8] = b"tollgt01";
/// What the successor says once it serves.
const READY: u8 = b'R';
/// How long the successor may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The sockets could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Nobody is there.
    #[error("no running process answers on {path}: {source}")]
    Absent {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The exchange failed.
    #[error("the running process did not hand its sockets over: {0}")]
    Failed(String),
}

/// The sockets that are handed over: that of clients, if there is a data plane, and that of operators.
pub(super) type Sockets = (Option<TcpListener>, TcpListener);

/// Sockets taken over from a running process, and the line by which it is told that we serve.
pub struct Inherited {
    mcp: Option<TcpListener>,
    admin: TcpListener,
    line: UnixStream,
    serving: watch::Sender<bool>,
}

impl Inherited {
    /// The sockets, and what tells when [`Successor::serving`] was said.
    pub(super) fn into_parts(self) -> (Option<TcpListener>, TcpListener, watch::Receiver<bool>) {
        (self.mcp, self.admin, self.serving.subscribe())
    }

    /// A second handle of the line, to say [`Successor::serving`] after the sockets are used.
    pub fn successor(&self) -> io::Result<Successor> {
        Ok(Successor { line: self.line.try_clone()?, serving: self.serving.clone() })
    }
}

/// Tells the old process to go.
pub struct Successor {
    line: UnixStream,
    serving: watch::Sender<bool>,
}

impl Successor {
    /// We serve; the old process may end.
    pub fn serving(mut self) -> io::Result<()> {
        self.line.write_all(&[READY])?;
        self.serving.send_replace(true);
        Ok(())
    }
}

/// Takes the sockets of the process that runs on this data directory.
///
/// # Errors
/// [`HandoverError`]; the running process goes on.
pub fn receive(data_dir: &Path) -> Result<Inherited, HandoverError> {
    let path = data_dir.join(SOCKET);
    let line = UnixStream::connect(&path).map_err(|source| HandoverError::Absent { path, source })?;
    take(line)
}

fn take(line: UnixStream) -> Result<Inherited, HandoverError> {
    let failed = |e: &dyn std::fmt::Display| HandoverError::Failed(e.to_string());
    line.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| failed(&e))?;
    let mut hello = [0u8; HELLO.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(&line, &mut [IoSliceMut::new(&mut hello)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .map_err(|e| failed(&e))?;
    if received.bytes != HELLO.len() || hello != *HELLO {
        return Err(failed(&"it speaks another version of the handover"));
    }
    let mut sockets = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .map(TcpListener::from);
    let serving = watch::Sender::new(false);
    match (sockets.next(), sockets.next()) {
        (Some(mcp), Some(admin)) => Ok(Inherited { mcp: Some(mcp), admin, line, serving }),
        // A process without a data plane has one socket only.
        (Some(admin), None) => Ok(Inherited { mcp: None, admin, line, serving }),
        _ => Err(failed(&"it sent no sockets; it may be draining already")),
    }
}

/// Waits for a successor and hands over. Runs until dropped, or until a successor serves. `serving`: we are a successor
/// ourselves, and this tells when we have said that we serve.
pub(super) async fn serve(
    data_dir: PathBuf,
    sockets: Arc<Mutex<Option<Sockets>>>,
    handed: watch::Sender<bool>,
    serving: Option<watch::Receiver<bool>>,
) {
    let path = data_dir.join(SOCKET);
    // Until then the door is that of the process we succeed: if we do not come that far, the next one finds it open.
    if let Some(mut serving) = serving
        && serving.wait_for(|serving| *serving).await.is_err()
    {
        return;
    }
    let door = match open_door(&path) {
        Ok(door) => door,
        Err(error) => {
            tracing::warn!(event = "upgrade_unavailable", path = %path.display(), %error);
            return;
        }
    };
    loop {
        let Ok((line, _)) = door.accept().await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let Ok(line) = line.into_std() else { continue };
        let sockets = sockets.clone();
        let outcome = tokio::task::spawn_blocking(move || hand_over(line, &sockets)).await;
        match outcome {
            Ok(Ok(())) => {
                let _ = handed.send(true);
                return;
            }
            Ok(Err(error)) => tracing::warn!(event = "upgrade_failed", %error),
            Err(error) => tracing::warn!(event = "upgrade_failed", %error),
        }
    }
}

/// Takes the place of whatever socket file is there: of a process that is gone, or of one that is being succeeded.
fn open_door(path: &Path) -> io::Result<tokio::net::UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let own = path.with_file_name(name);
    let _ = fs::remove_file(&own);
    let door = UnixListener::bind(&own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600))?;
    fs::rename(&own, path)?;
    door.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(door)
}

fn hand_over(mut line: UnixStream, sockets: &Mutex<Option<Sockets>>) -> io::Result<()> {
    line.set_nonblocking(false)?;
    line.set_read_timeout(Some(START_TIMEOUT))?;
    {
        let held = sockets.lock();
        let Some((mcp, admin)) = held.as_ref() else {
            return Err(io::Error::other("the sockets are gone already"));
        };
        let descriptors: Vec<_> = mcp.iter().chain([admin]).map(|socket| socket.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for two descriptors"));
        }
        sendmsg(&line, &[IoSlice::new(HELLO)], &mut ancillary, SendFlags::empty())?;
    }
    let mut answer = [0u8; 1];
    line.read_exact(&mut answer)?;
    if answer[0] == READY { Ok(()) } else { Err(io::Error::other("the successor gave up")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_arrive_and_the_old_process_learns_when_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let mcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mcp_address, admin_address) = (mcp.local_addr().unwrap(), admin.local_addr().unwrap());
        let (handed, mut done) = watch::channel(false);
        let held = Arc::new(Mutex::new(Some((Some(mcp), admin))));
        tokio::spawn(serve(dir.path().to_owned(), held, handed, None));
        let path = dir.path().to_owned();
        let (inherited, successor) = tokio::task::spawn_blocking(move || {
            let inherited = loop {
                match receive(&path) {
                    Ok(inherited) => break inherited,
                    Err(HandoverError::Absent { .. }) => std::thread::sleep(Duration::from_millis(10)),
                    Err(e) => panic!("{e}"),
                }
            };
            let successor = inherited.successor().unwrap();
            (inherited.into_parts(), successor)
        })
        .await
        .unwrap();
        assert_eq!(inherited.0.expect("two were sent").local_addr().unwrap(), mcp_address);
        assert_eq!(inherited.1.local_addr().unwrap(), admin_address);
        assert!(!*done.borrow(), "not before the successor serves");
        successor.serving().unwrap();
        done.wait_for(|d| *d).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_without_a_data_plane_hands_the_operators_socket_over() {
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = admin.local_addr().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let held = Mutex::new(Some((None, admin)));
        let sender = std::thread::spawn(move || hand_over(near, &held));
        let inherited = take(far).unwrap();
        inherited.successor().unwrap().serving().unwrap();
        sender.join().unwrap().unwrap();
        let (mcp, admin, _) = inherited.into_parts();
        assert!(mcp.is_none());
        assert_eq!(admin.local_addr().unwrap(), address);
    }

    #[test]
    fn nobody_there_is_said_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let text = receive(dir.path()).err().unwrap().to_string();
        assert!(text.contains("upgrade.sock"), "{text}");
    }
}
