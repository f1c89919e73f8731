use std::io;
use std::path::Path;

use super::command::{exists, run};

/// `FS_IOC_SHUTDOWN` with the flag for "do not even write the journal out", in two languages: the call needs code that
/// Rust counts as unsafe, and one of these is on most machines.
const PROGRAMS: [(&str, &str, &str); 2] = [
    (
        "perl",
        "-e",
        r#"open(my $folder, "<", $ARGV[0]) or die "$!\n";
           my $flags = pack("L", 2);
           ioctl($folder, 0x8004587D, $flags) or die "$!\n";"#,
    ),
    (
        "python3",
        "-c",
        "import fcntl, os, struct, sys\n\
         fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))",
    ),
];

/// What is missing to shut file systems down, if anything.
pub(super) fn unavailable() -> Option<String> {
    let none = !PROGRAMS.iter().any(|(program, ..)| exists(program));
    none.then(|| "a file system is shut down by perl or python3, and neither is installed".to_owned())
}

/// Stops the file system at this folder at once, as a power loss does: nothing more of it reaches its disk, and what
/// it has in memory is gone with the next unmounting. Returns the program that did it.
pub(super) async fn shut_down(folder: &Path) -> io::Result<&'static str> {
    let mut failed = io::Error::other("no program for it");
    for (program, option, code) in PROGRAMS {
        if !exists(program) {
            continue;
        }
        match run(program, [option.as_ref(), code.as_ref(), folder.as_os_str()]).await {
            Ok(_) => return Ok(program),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
