//! A throwaway PostgreSQL that can be stopped in the middle, reached over TCP and TLS.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    programs: PathBuf,
    pub(crate) port: u16,
    as_nobody: bool,
}

/// Where `initdb` and `pg_ctl` are.
fn programs() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    places.into_iter().find(|place| place.join("initdb").is_file())
}

fn ran(output: Output) -> Output {
    assert!(output.status.success(), "{output:?}");
    output
}

impl Cluster {
    /// `None`, saying so, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let (Some(programs), true) = (programs(), which("openssl")) else {
            eprintln!("skipped: there is no PostgreSQL or no openssl here");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("kobza-cluster").tempdir_in("/tmp").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let id = Command::new("id").arg("-u").output().unwrap();
        let as_nobody = id.stdout.starts_with(b"0\n");
        let cluster = Self { folder, programs, port, as_nobody };
        cluster.certificates();
        if as_nobody {
            let mut own = Command::new("chown");
            ran(own.args(["-R", "nobody:nogroup"]).arg(cluster.path()).output().unwrap());
        }
        let data = cluster.path().join("data");
        let data = data.to_str().unwrap();
        ran(cluster.program(
            "initdb",
            &["-D", data, "-U", "kobza", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
        ));
        // Whoever comes over the network must be encrypted, but `plain`.
        let access = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n\
                      hostnossl all plain 127.0.0.1/32 trust\n";
        std::fs::write(cluster.path().join("data/pg_hba.conf"), access).unwrap();
        cluster.begin();
        Some(cluster)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn program(&self, name: &str, args: &[&str]) -> Output {
        let program = self.programs.join(name);
        let mut command = if self.as_nobody {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(args).current_dir(self.path()).output().unwrap()
    }

    /// An authority, a certificate of it for `localhost`, and another authority.
    fn certificates(&self) {
        let script = "
            set -e
            for name in ca other; do
                openssl req -x509 -newkey rsa:2048 -nodes -keyout $name.key -out $name.pem -days 2 -subj /CN=$name \
                    -addext basicConstraints=critical,CA:TRUE
            done
            openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost
            printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > san
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem
            chmod 600 server.key
            chmod 755 .
        ";
        let shell = Command::new("sh").args(["-c", script]).current_dir(self.path()).output();
        ran(shell.unwrap());
    }

    /// Starts it, anew after [`Self::end`].
    pub(crate) fn begin(&self) {
        let folder = self.path().to_str().unwrap();
        let options = format!(
            "-c listen_addresses=127.0.0.1 -p {} -k {folder} -c fsync=off -c ssl=on \
             -c ssl_cert_file={folder}/server.pem -c ssl_key_file={folder}/server.key",
            self.port
        );
        let (data, log) = (format!("{folder}/data"), format!("{folder}/log"));
        // It keeps what it got as its outputs: none may be a pipe that somebody reads.
        let started =
            self.program("pg_ctl", &["-D", &data, "-l", &log, "-w", "-s", "-o", &options, "start"]);
        ran(started);
    }

    /// Ends it as a crash would.
    pub(crate) fn end(&self) {
        let data = self.path().join("data");
        let data = data.to_str().unwrap();
        ran(self.program("pg_ctl", &["-D", data, "-m", "immediate", "-s", "stop"]));
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    /// Over the socket of this machine.
    pub(crate) fn local_url(&self) -> String {
        let folder = self.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://kobza@{folder}:{}/postgres", self.port)
    }

    /// Over the network.
    pub(crate) fn url(&self, host: &str, parameters: &str) -> String {
        format!("postgres://kobza@{host}:{}/postgres?{parameters}", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.path().join("data");
        let stop = ["-D", data.to_str().unwrap(), "-m", "immediate", "-s", "stop"];
        let _gone = self.program("pg_ctl", &stop);
    }
}

fn which(program: &str) -> bool {
    Command::new(program).arg("version").output().is_ok_and(|output| output.status.success())
}
