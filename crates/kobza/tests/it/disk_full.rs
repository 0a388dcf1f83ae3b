//! A disk that fills while runs go: a clear refusal, nothing acknowledged is lost, and all goes on
//! once there is space.

use std::process::Command;

use crate::machine::{Folder, Server, until};

/// A small file system of its own, where this machine lets us have one.
struct Disk<'a> {
    folder: &'a Folder,
}

impl<'a> Disk<'a> {
    fn mount(folder: &'a Folder) -> Option<Self> {
        let place = folder.path().join("data");
        std::fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(&place)
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { folder })
    }

    /// Leaves nothing, or the whole.
    fn fill(&self) {
        let mut block = vec![0_u8; 1 << 20];
        let mut file = std::fs::File::create(self.folder.path().join("data/ballast")).unwrap();
        while !block.is_empty() {
            while std::io::Write::write_all(&mut file, &block).is_ok() {}
            block.truncate(block.len() / 2);
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.folder.path().join("data/ballast")).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // Lazily: a shim may end a little later.
        let _gone = Command::new("umount").arg("-l").arg(self.folder.path().join("data")).status();
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let folder = Folder::new();
    let Some(disk) = Disk::mount(&folder) else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let server = Server::start(&folder);
    // A body may well fail for want of space.
    let yaml = "name: w\ndefaults: {retries: {limit: 1000, delay: 500ms}}\ntasks:\n  a: {shell: 'echo x'}\n  b: {shell: 'echo y', needs: a}\n";
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", yaml).0, 201);
    let start = || server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    let mut acknowledged = Vec::new();
    let mut note = |(status, answer): (u16, serde_json::Value)| {
        if status == 201 {
            acknowledged.push(answer["id"].as_str().unwrap().to_owned());
        }
        (status, answer)
    };
    for _ in 0..5 {
        assert_eq!(note(start()).0, 201);
    }
    disk.fill();
    // What its files have room for already may still be taken.
    let mut refusal = serde_json::Value::Null;
    until("a run is refused", || {
        let (status, answer) = note(start());
        refusal = answer;
        status != 201
    });
    assert_eq!(refusal["error"]["code"], "store_unavailable", "{refusal}");
    assert!(refusal.to_string().contains("full"), "{refusal}");
    assert_eq!(server.get("/api/v1/runs").0, 200, "reading goes on");
    disk.free();
    until("a run is taken again", || note(start()).0 == 201);
    for id in &acknowledged {
        assert_eq!(server.wait_run(id), "succeeded");
    }
    drop(server);
    let doctor = folder.kobza(&["doctor", "--data", "data"]);
    assert!(crate::machine::text(&doctor.stdout).contains("sound"), "{doctor:?}");
}
