//! Standbys: while a variant on demand has no replica, a process that has imported what its model needs waits to become the next one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{CWD, Mode, OFlags};
use tokio::sync::oneshot;

use crate::replica::{Replica, describe, remove_socket_directory};

/// Beside the socket of a model host: the names of the modules that it is to import ahead, a line each.
pub(crate) const IMPORTS: &str = "imports";

/// Beside the socket of a model host that has loaded its model: those that it has imported.
const MODULES: &str = "modules";

/// More than that is no list of modules.
const MOST_BYTES: u64 = 512 * 1024;

/// What the replicas of a variant have imported.
#[derive(Debug, Default)]
pub(crate) struct Imports(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// Where the last one that came up says it.
    file: PathBuf,
    /// What it said last, a name in each line.
    names: Option<Arc<str>>,
}

impl Imports {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().expect("no code that holds this lock can panic")
    }

    fn read(&self, file: PathBuf) {
        let names = modules(&file);
        *self.said() = Said { file, names };
    }

    /// To be called before a replica is stopped: requests may have imported more since it came up.
    pub(crate) fn look_again(&self) {
        let file = self.said().file.clone();
        // One that was lost said enough when it came up.
        if file.parent().is_some_and(Path::exists) {
            self.read(file);
        }
    }

    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.said().names.clone()
    }
}

/// The standbys of all endpoints: so many at most at once.
#[derive(Debug)]
pub(crate) struct Standbys {
    limit: usize,
    /// The oldest first.
    present: Mutex<Vec<Present>>,
}

#[derive(Debug)]
struct Present {
    id: String,
    /// Gone when it was asked to leave.
    leave: Option<oneshot::Sender<()>>,
}

/// A standby's place among the others, until this is dropped.
struct Place {
    standbys: Arc<Standbys>,
    id: String,
    asked_to_leave: oneshot::Receiver<()>,
}

impl Standbys {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, present: Mutex::default() })
    }

    fn present(&self) -> MutexGuard<'_, Vec<Present>> {
        self.present.lock().expect("no code that holds this lock can panic")
    }

    pub(crate) fn are_wanted(&self) -> bool {
        self.limit > 0
    }

    /// Whether the process of this id stands by, and is no replica.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.present().iter().any(|one| one.id == id)
    }

    /// Takes one in. The oldest has to leave when there are too many.
    fn enter(self: &Arc<Self>, id: &str) -> Place {
        let (leave, asked_to_leave) = oneshot::channel();
        let mut present = self.present();
        present.push(Present { id: id.to_owned(), leave: Some(leave) });
        if present.iter().filter(|one| one.leave.is_some()).count() > self.limit {
            // Whoever goes anyway needs not be told.
            let _ = present.iter_mut().find_map(|one| one.leave.take()).map(|leave| leave.send(()));
        }
        Place { standbys: Arc::clone(self), id: id.to_owned(), asked_to_leave }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.standbys.present().retain(|one| one.id != self.id);
    }
}

/// The side of a sleeping replica that its fleet holds; dropping it stops what stands by.
pub(crate) struct Sleeper {
    wake: oneshot::Sender<()>,
    stop: oneshot::Sender<()>,
}

/// The side that its task has.
pub(crate) struct Sleep {
    /// Told to wake, or dropped to stop.
    wake: oneshot::Receiver<()>,
    /// For when it is awake.
    stop: oneshot::Receiver<()>,
}

impl Sleeper {
    pub(crate) fn new() -> (Self, Sleep) {
        let (wake, woken) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        (Self { wake, stop }, Sleep { wake: woken, stop: stopped })
    }

    /// Makes it a replica; what is given back stops that.
    pub(crate) fn wake(self) -> oneshot::Sender<()> {
        // Its task ends only when this is dropped.
        let _ = self.wake.send(());
        self.stop
    }
}

impl Replica {
    /// Sleeps, with a process that stands by as long as it can, and runs the replica when it is woken.
    pub(crate) async fn sleep(mut self, names: Arc<str>, standbys: Arc<Standbys>, mut sleep: Sleep) {
        let id = self.new_id();
        let socket = self.socket(&id);
        let mut place = standbys.enter(&id);
        let asked = self.stand_by(&id, &socket, &names, &mut place, &mut sleep.wake).await;
        if asked == Ok(true) {
            self.woken = Some(id);
        } else {
            self.launcher.stop(&id).await;
            remove_socket_directory(&socket);
        }
        drop(place);
        let is_woken = match asked {
            Ok(is_woken) => is_woken,
            Err(reason) => {
                let (endpoint, variant) = (&*self.endpoint, &*self.plan.name);
                tracing::info!(endpoint, variant, reason, "nothing stands by for a variant that sleeps");
                sleep.wake.await.is_ok()
            }
        };
        if is_woken {
            self.run_single(sleep.stop).await;
        }
    }

    /// Has a process stand by until it is wanted (`true`) or not wanted any more; the error says why there is none.
    async fn stand_by(
        &self,
        id: &str,
        socket: &Path,
        names: &str,
        place: &mut Place,
        wake: &mut oneshot::Receiver<()>,
    ) -> Result<bool, String> {
        self.launch(id, socket, Some(names)).await?;
        tokio::select! {
            biased;
            asked = wake => Ok(asked.is_ok()),
            exit = self.launcher.exited(id) => Err(describe(&exit)),
            _ = &mut place.asked_to_leave => Err("Others fell asleep after it.".to_owned()),
        }
    }

    /// Takes down what a replica that answers has imported, for those that stand by in its place later.
    pub(crate) fn note_imports(&self, id: &str, socket: &Path) {
        if self.plan.on_demand.is_some() && self.launcher.can_stand_by(id) {
            self.imports.read(socket.with_file_name(MODULES));
        }
    }
}

/// The names in a file that anybody's code may have written.
fn modules(path: &Path) -> Option<Arc<str>> {
    // Neither a link nor a pipe may stand in its place: this must not read what the code may not, nor wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text).ok()?;
    let text = String::from_utf8(text).ok().filter(|text| text.len() as u64 <= MOST_BYTES)?;
    let names: Vec<&str> = text.lines().filter(|line| is_module(line)).collect();
    (!names.is_empty()).then(|| Arc::from(names.join("\n")))
}

fn is_module(name: &str) -> bool {
    let is_of_a_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let is_name =
        |part: &str| part.starts_with(|first: char| !first.is_numeric()) && part.chars().all(is_of_a_name);
    name.split('.').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_and_each_is_known_until_it_is_gone() {
        let standbys = Standbys::new(2);
        let mut first = standbys.enter("1");
        let mut second = standbys.enter("2");
        let third = standbys.enter("3");
        assert_eq!(first.asked_to_leave.try_recv(), Ok(()));
        assert!(second.asked_to_leave.try_recv().is_err());
        assert!(["1", "2", "3"].iter().all(|id| standbys.has(id)));
        drop((first, third));
        let _fourth = standbys.enter("4");
        assert!(second.asked_to_leave.try_recv().is_err(), "there was room");
        let _fifth = standbys.enter("5");
        assert_eq!(second.asked_to_leave.try_recv(), Ok(()));
        assert_eq!((standbys.has("1"), standbys.has("4")), (false, true));
        assert!(standbys.are_wanted() && !Standbys::new(0).are_wanted());
    }

    #[test]
    fn what_was_imported_later_counts_and_what_is_gone_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MODULES);
        let imports = Imports::default();
        imports.look_again();
        assert_eq!(imports.get(), None);
        std::fs::write(&path, "json").unwrap();
        imports.read(path.clone());
        std::fs::write(&path, "json\nwave").unwrap();
        assert_eq!(imports.get().as_deref(), Some("json"));
        imports.look_again();
        assert_eq!(imports.get().as_deref(), Some("json\nwave"));
        std::fs::remove_file(&path).unwrap();
        imports.look_again();
        assert_eq!(imports.get(), None, "its code may not have its imports ahead");
        std::fs::write(&path, "json").unwrap();
        imports.look_again();
        drop(folder);
        imports.look_again();
        assert_eq!(imports.get().as_deref(), Some("json"));
    }

    #[test]
    fn only_names_are_taken_from_a_plain_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MODULES);
        let read = || modules(&path);
        assert_eq!(read(), None);
        std::fs::write(&path, "json\nsklearn.linear_model\n\n../x\na b\n.a\na..b\n1a\na.2\n_c.é1\n--flag\n")
            .unwrap();
        assert_eq!(read().as_deref(), Some("json\nsklearn.linear_model\n_c.é1"));
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(read(), None);
        std::fs::write(&path, b"a\n\xff").unwrap();
        assert_eq!(read(), None);
        std::fs::write(&path, "a\n".repeat(MOST_BYTES as usize / 2)).unwrap();
        assert!(read().is_some());
        std::fs::write(&path, "a\n".repeat(MOST_BYTES as usize / 2 + 1)).unwrap();
        assert_eq!(read(), None);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(folder.path().join("elsewhere"), "json").unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert_eq!(read(), None);
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read(), None);
    }
}
