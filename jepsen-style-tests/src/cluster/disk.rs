use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// How large a disk looks. The image has holes, so that it takes what is written.
const SIZE: u64 = 256 << 20;
/// What the name of each image begins with. The number of the process that made it follows.
const PREFIX: &str = "jepsen-";
/// How a loop device says which file it is.
const BACKING_FILE: &str = "loop/backing_file";

/// A file system of its own: an ext4 image in a file, mounted through a loop device. Dropping it unmounts it, and the
/// image stays.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

/// Why there can be no disks on this machine, if so. Found out once, by trying.
pub fn unavailable() -> Option<String> {
    static TRIED: OnceLock<Option<String>> = OnceLock::new();
    let tried = TRIED.get_or_init(|| {
        let tried = tempfile::tempdir().and_then(|folder| Disk::create(folder.path(), "try"));
        tried
            .err()
            .map(|error| format!("loop-mounted disks need root: {error}"))
    });
    tried.clone()
}

/// Takes away what is left of disks whose process is gone.
pub fn sweep() {
    let Ok(devices) = fs::read_dir("/sys/block") else {
        return;
    };
    for device in devices.flatten() {
        let Ok(image) = fs::read_to_string(device.path().join(BACKING_FILE)) else {
            continue;
        };
        if maker(Path::new(image.trim())).is_some_and(|maker| !exists(maker)) {
            let device = Path::new("/dev").join(device.file_name());
            tracing::warn!(device = %device.display(), "unmounting what an earlier run left");
            if let Err(error) = take_away(&device) {
                tracing::warn!(%error, "it stays");
            }
        }
    }
}

impl Disk {
    /// A new one, empty and mounted, at the folder of this name in `parent`; its image lies beside it.
    pub(super) fn create(parent: &Path, name: &str) -> io::Result<Self> {
        let image = parent.join(format!("{PREFIX}{}-{name}.ext4", std::process::id()));
        let folder = parent.join(name);
        fs::create_dir_all(&folder)?;
        File::create(&image)?.set_len(SIZE)?;
        // A small journal, and nothing that the system would write later by itself.
        run(Command::new("mkfs.ext4")
            .args([
                "-q",
                "-F",
                "-J",
                "size=4",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
            ])
            .arg(&image))?;
        let disk = Self { image, folder };
        disk.mount()?;
        Ok(disk)
    }

    /// Forgets the image: it is gone as soon as the disk is unmounted, with everything on it.
    pub(super) fn discard(&self) -> io::Result<()> {
        fs::remove_file(&self.image)
    }

    /// The file that has everything that was written to the disk.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The loop device, while it is mounted.
    pub fn device(&self) -> io::Result<Option<PathBuf>> {
        let folder = fs::canonicalize(&self.folder)?;
        Ok(mounts()?
            .into_iter()
            .find(|(_, mounted)| *mounted == folder)
            .map(|(device, _)| device))
    }

    /// Mounts it, which repeats the journal of a file system that was not unmounted.
    pub fn mount(&self) -> io::Result<()> {
        // The loop device goes by itself with the mount.
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop,discard"])
            .arg(&self.image)
            .arg(&self.folder))
    }

    /// Unmounts it. Nobody may use it any more.
    pub fn unmount(&self) -> io::Result<()> {
        run(Command::new("umount").arg(&self.folder))
    }

    /// Mounts it otherwise, such as `ro` or `rw`, under the feet of whoever uses it.
    pub fn remount(&self, option: &str) -> io::Result<()> {
        run(Command::new("mount")
            .args(["-o", &format!("remount,{option}")])
            .arg(&self.folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let taken = match self.device() {
            Ok(None) => Ok(()),
            Ok(Some(device)) => self.unmount().or_else(|_| take_away(&device)),
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            tracing::error!(disk = %self.folder.display(), %error, "a disk stays mounted");
        }
    }
}

/// Unmounts a device even if somebody uses it. It is free as soon as nobody does.
fn take_away(device: &Path) -> io::Result<()> {
    for (_, folder) in mounts()?.into_iter().filter(|(mounted, _)| mounted == device) {
        run(Command::new("umount").arg("--lazy").arg(&folder))?;
    }
    Ok(())
}

/// What is mounted: device and folder.
fn mounts() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ').map(unescape);
        Some((fields.next()?.into(), fields.next()?.into()))
    });
    Ok(mounts.collect())
}

/// The system writes a space as `\040`, and so on.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

/// Which process made an image, if it is one of ours.
fn maker(image: &Path) -> Option<u32> {
    // The system adds "(deleted)" when the file is gone; the mount is there all the same.
    let name = image.file_name()?.to_str()?;
    let (process, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    name.contains(".ext4").then(|| process.parse().ok())?
}

/// Whether there is a process of this number. If it is another one by now, what the first one left stays for longer.
fn exists(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

fn run(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("the command {program}: {error}")))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the command {program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}
