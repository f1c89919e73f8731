use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where control groups of the first version have their memory.
const FIRST: &str = "/sys/fs/cgroup/memory";
/// Where those of the second version are, alone or beside the first.
const SECOND: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// What the name of each of our groups begins with. The number of the process that made it follows.
const PREFIX: &str = "jepsen-";

/// A limit on the memory that a process gets from now on: a control group of its own, in which nothing counts that it
/// had before. Dropping it lifts it.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    process: u32,
    group: PathBuf,
    files: &'static Files,
    /// Which group it was in before.
    before: PathBuf,
    lifted: bool,
}

/// The files of a version of control groups.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    limit: &'static str,
    /// Where it says how often the limit was hit, in the line that begins with the word, or in the only one.
    hits: (&'static str, &'static str),
}

static FIRST_FILES: Files = Files {
    limit: "memory.limit_in_bytes",
    hits: ("memory.failcnt", ""),
};

static SECOND_FILES: Files = Files {
    limit: "memory.max",
    hits: ("memory.events", "max "),
};

/// Why no memory can be limited on this machine, if so. Found out by trying.
pub(super) fn unavailable() -> Option<String> {
    let tried = Group::make();
    match tried {
        Ok(group) => fs::remove_dir(&group.folder)
            .err()
            .map(|error| format!("a control group stays: {error}")),
        Err(error) => Some(format!("control groups for memory need root: {error}")),
    }
}

/// A group with nobody in it.
struct Group {
    folder: PathBuf,
    files: &'static Files,
}

impl Group {
    fn make() -> io::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let (parent, files) = parent()?;
        sweep(parent);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&folder)?;
        let group = Self { folder, files };
        match fs::metadata(group.folder.join(files.limit)) {
            Ok(_) => Ok(group),
            Err(error) => {
                fs::remove_dir(&group.folder)?;
                Err(error)
            }
        }
    }
}

/// Where groups with a limit on memory can be made.
fn parent() -> io::Result<(&'static Path, &'static Files)> {
    let first = Path::new(FIRST);
    if first.join(FIRST_FILES.limit).exists() {
        return Ok((first, &FIRST_FILES));
    }
    for second in SECOND.map(Path::new) {
        let controllers = fs::read_to_string(second.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_whitespace().any(|name| name == "memory") {
            fs::write(second.join("cgroup.subtree_control"), "+memory")?;
            return Ok((second, &SECOND_FILES));
        }
    }
    Err(io::Error::other("there is no controller of memory"))
}

/// Takes away the groups of harnesses that are gone. One with a process in it stays.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'))
            .and_then(|(maker, _)| maker.parse::<u32>().ok());
        let is_gone = |maker: u32| !Path::new("/proc").join(maker.to_string()).exists();
        if maker.is_some_and(is_gone)
            && let Err(error) = fs::remove_dir(entry.path())
        {
            tracing::warn!(%error, group = %entry.path().display(), "a group that an earlier run left stays");
        }
    }
}

impl MemoryLimit {
    /// From now on the process gets no more than so many bytes of new memory.
    pub(super) fn impose(process: u32, more: u64) -> io::Result<Self> {
        let Group { folder, files } = Group::make()?;
        let mut limit = Self {
            process,
            group: folder,
            files,
            before: PathBuf::new(),
            lifted: false,
        };
        limit.before = limit.group_before()?;
        fs::write(limit.group.join(files.limit), more.to_string())?;
        limit.move_to(&limit.group)?;
        Ok(limit)
    }

    /// How often the process was refused memory, or had to give some back to get it.
    pub(super) fn hits(&self) -> u64 {
        let (file, word) = self.files.hits;
        let text = fs::read_to_string(self.group.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix(word));
        count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or_default()
    }

    /// Takes the process out of it again, if it is still there, and the limit away. Nothing happens the second time.
    pub(super) fn lift(&mut self) -> io::Result<()> {
        if self.lifted {
            return Ok(());
        }
        self.lifted = true;
        if !fs::read_to_string(self.group.join("cgroup.procs"))?.is_empty() {
            self.move_to(&self.before)?;
        }
        fs::remove_dir(&self.group)
    }

    fn move_to(&self, group: &Path) -> io::Result<()> {
        fs::write(group.join("cgroup.procs"), self.process.to_string())
    }

    /// The group of our version that the process is in.
    fn group_before(&self) -> io::Result<PathBuf> {
        let root = self.group.parent().unwrap_or(&self.group);
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.process))?;
        let first = *self.files == FIRST_FILES;
        let of_ours = |line: &&str| match first {
            true => line
                .split(':')
                .nth(1)
                .is_some_and(|names| names.split(',').any(|name| name == "memory")),
            false => line.starts_with("0::"),
        };
        let path = text
            .lines()
            .find(of_ours)
            .and_then(|line| line.splitn(3, ':').nth(2));
        Ok(root.join(path.unwrap_or_default().trim_start_matches('/')))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Err(error) = self.lift() {
            tracing::warn!(%error, group = %self.group.display(), "a limit on memory stays");
        }
    }
}
