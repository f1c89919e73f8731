use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::command::run;
use crate::cluster::{Cluster, Member};

/// What a folder of a process held while the process did not run. Kept beside the data folder until this is dropped.
pub(super) struct Saved {
    copy: TempDir,
    folder: PathBuf,
}

impl Saved {
    /// Copies a part of a process's data folder; all of it if `part` is empty. The process must not run.
    pub(super) async fn of(cluster: &Cluster, member: Member, part: &str) -> io::Result<Self> {
        let data = cluster.data(member);
        let Some(beside) = data.parent() else {
            return Err(io::Error::other("the data folder is in no folder"));
        };
        let copy = tempfile::Builder::new()
            .prefix(&format!("saved-{member}-"))
            .tempdir_in(beside)?;
        let folder = match part {
            "" => data,
            part => data.join(part),
        };
        let saved = Self { copy, folder };
        // The journals are zeros for the most part, which need not lie there twice.
        copy_all("always", &saved.folder, saved.copy.path()).await?;
        Ok(saved)
    }

    /// Where the copy is.
    pub(super) fn copied(&self) -> &Path {
        self.copy.path()
    }

    /// Puts back what was copied, and nothing else is left. Durable, as whoever wrote it believes it is.
    pub(super) async fn put_back(&self) -> io::Result<()> {
        clear(&self.folder)?;
        // Without holes: a full disk must not surprise who has the room already.
        copy_all("never", self.copy.path(), &self.folder).await?;
        sync(&self.folder).await
    }
}

/// Removes everything in a folder.
pub(super) fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // The file system's own.
        if entry.file_name() == "lost+found" {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Makes everything on the file system of this folder durable.
pub(super) async fn sync(folder: &Path) -> io::Result<()> {
    run("sync", [Path::new("--file-system"), folder]).await?;
    Ok(())
}

async fn copy_all(holes: &str, from: &Path, to: &Path) -> io::Result<()> {
    let holes = format!("--sparse={holes}");
    let from = from.join(".");
    let arguments = [Path::new("--archive"), Path::new(&holes), &from, to];
    run("cp", arguments).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_saved_comes_back_and_nothing_else_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("p1");
        fs::create_dir_all(folder.join("journal")).unwrap();
        fs::write(folder.join("journal/segment"), [[7; 4096], [0; 4096]].concat()).unwrap();
        fs::write(folder.join("formed"), "yes").unwrap();
        let copy = tempfile::tempdir_in(parent.path()).unwrap();
        let saved = Saved {
            copy,
            folder: folder.clone(),
        };
        copy_all("always", &folder, saved.copy.path()).await.unwrap();
        fs::write(folder.join("journal/segment"), "damaged").unwrap();
        fs::write(folder.join("journal/more"), "new").unwrap();
        fs::create_dir(folder.join("table.damaged-1")).unwrap();
        saved.put_back().await.unwrap();
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["formed", "journal"]);
        let segment = fs::read(folder.join("journal/segment")).unwrap();
        assert_eq!(segment, [[7; 4096], [0; 4096]].concat());
        assert!(!folder.join("journal/more").exists());
        clear(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
