//! Every setting there is. A new one is a row here: the file, the environment, the flag, `doctor`
//! and the check of the documentation follow from it.

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    /// In the file it counts from the file's folder, elsewhere from the working folder.
    Path,
    /// `IP:PORT`.
    Address,
    /// A whole number, between both.
    Number(u32, u32),
    /// `90d`, `12h`, `45m`, `30s`.
    Duration,
    Choice(&'static [&'static str]),
    /// Texts; with commas between them outside the file.
    List,
    /// A URL whose password is never shown.
    Url,
}

/// Who takes a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `kobza server`.
    Server,
    /// The commands that ask a server.
    Client,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its place in the file.
    pub(crate) key: &'static str,
    /// Its flag, without hyphens.
    pub(crate) flag: &'static str,
    /// Whose flag that is.
    pub(crate) of: Program,
    pub(crate) variable: &'static str,
    pub(crate) form: Form,
    /// As it would be written; none: absent.
    pub(crate) default: Option<&'static str>,
    pub(crate) help: &'static str,
}

pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "data",
        flag: "data",
        of: Program::Server,
        variable: "KOBZA_DATA",
        form: Form::Path,
        default: Some(".kobza"),
        help: "Folder of logs, shims, the key of the secrets, and the embedded store",
    },
    Setting {
        key: "store",
        flag: "store",
        of: Program::Server,
        variable: "KOBZA_STORE",
        form: Form::Url,
        default: None,
        help: "Where the store is: `postgres://user@host/database?schema=name`, or \
               `sqlite:FOLDER`; the data folder when absent. A URL with a password belongs into \
               the file or the environment",
    },
    Setting {
        key: "listen",
        flag: "listen",
        of: Program::Server,
        variable: "KOBZA_LISTEN",
        form: Form::Address,
        default: Some("127.0.0.1:8470"),
        help: "Address to listen on; another than loopback is refused until there is an account",
    },
    Setting {
        key: "hosts",
        flag: "hosts",
        of: Program::Server,
        variable: "KOBZA_HOSTS",
        form: Form::List,
        default: None,
        help: "Names under which the server may be addressed, beside IP addresses, `localhost` \
               and the machine's own name; `*` allows every name",
    },
    Setting {
        key: "artifacts",
        flag: "artifacts",
        of: Program::Server,
        variable: "KOBZA_ARTIFACTS_URL",
        form: Form::Text,
        default: None,
        help: "A bucket that keeps artifacts beside the data folder: `s3://bucket/prefix`, \
               `gs://bucket/prefix` or `az://container/prefix`; `local` ends that. Credentials come \
               from the environment, as AWS_ACCESS_KEY_ID and the like",
    },
    Setting {
        key: "workflows",
        flag: "workflows",
        of: Program::Server,
        variable: "KOBZA_WORKFLOWS",
        form: Form::Path,
        default: None,
        help: "Folder of workflow files, which is watched",
    },
    Setting {
        key: "slots",
        flag: "slots",
        of: Program::Server,
        variable: "KOBZA_SLOTS",
        form: Form::Number(1, 100_000),
        default: Some("64"),
        help: "Bodies of tasks at once",
    },
    Setting {
        key: "keep",
        flag: "keep",
        of: Program::Server,
        variable: "KOBZA_KEEP",
        form: Form::Duration,
        default: None,
        help: "Delete runs that ended longer ago, with their logs (such as 90d); none: keep all",
    },
    Setting {
        key: "log.format",
        flag: "log-format",
        of: Program::Server,
        variable: "KOBZA_LOG_FORMAT",
        form: Form::Choice(&["text", "json"]),
        default: Some("text"),
        help: "How log lines on standard error look",
    },
    Setting {
        key: "log.filter",
        flag: "log",
        of: Program::Server,
        variable: "KOBZA_LOG",
        form: Form::Text,
        default: Some("info"),
        help: "What is logged, such as `info` or `kobza_runtime=debug`",
    },
    Setting {
        key: "airflow.dags",
        flag: "airflow-dags",
        of: Program::Server,
        variable: "KOBZA_AIRFLOW_DAGS",
        form: Form::Path,
        default: None,
        help: "Folder of Airflow's DAG files, which is watched",
    },
    Setting {
        key: "airflow.python",
        flag: "airflow-python",
        of: Program::Server,
        variable: "KOBZA_AIRFLOW_PYTHON",
        form: Form::Path,
        default: None,
        help: "Interpreter of the environment that has Airflow, such as `venv/bin/python`",
    },
    Setting {
        key: "luigi.config",
        flag: "luigi-config",
        of: Program::Server,
        variable: "KOBZA_LUIGI_CONFIG",
        form: Form::Path,
        default: None,
        help: "Settings of the Luigi scheduler: a `luigi.cfg`, or a TOML file",
    },
    Setting {
        key: "argo.listen",
        flag: "argo-listen",
        of: Program::Server,
        variable: "KOBZA_ARGO_LISTEN",
        form: Form::Address,
        default: None,
        help: "A second address, where Argo's API is at `/api/v1`: for clients that take only a \
               host. Beside it the API is at `/argo` of the first",
    },
    Setting {
        key: "argo.images",
        flag: "argo-images",
        of: Program::Server,
        variable: "KOBZA_ARGO_IMAGES",
        form: Form::List,
        default: None,
        help: "What container images of Argo workflows stand for, by name with or without \
               registry and tag (`*`: all others): `NAME=FOLDER`, an unpacked root file system; \
               `NAME=engine`, what Docker or Podman has; `NAME=host`, the host's own commands, as \
               when absent; `NAME=nothing`, which succeeds without being run",
    },
    Setting {
        key: "client.server",
        flag: "server",
        of: Program::Client,
        variable: "KOBZA_SERVER",
        form: Form::Text,
        default: None,
        help: "The server that commands ask",
    },
    Setting {
        key: "client.token_file",
        flag: "token-file",
        of: Program::Client,
        variable: "KOBZA_TOKEN_FILE",
        form: Form::Path,
        default: None,
        help: "A file with the token that commands give; KOBZA_TOKEN holds one itself",
    },
];

/// Tables of the file that are no settings but rules of what goes out.
pub(crate) const OUTBOUND: [&str; 3] = ["notify", "traces", "lineage"];
