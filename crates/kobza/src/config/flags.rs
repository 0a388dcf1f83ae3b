//! The server's flags, made from the table.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use super::Given;
use super::table::{Program, SETTINGS, Setting};

/// One flag for each setting that has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerFlags(pub(crate) Given);

fn own() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.of == Program::Server)
}

impl Args for ServerFlags {
    fn augment_args(mut command: Command) -> Command {
        for setting in own() {
            let default =
                setting.default.map(|text| format!("; default: {text}")).unwrap_or_default();
            let help = format!(
                "{} [`{}` of the file; {}{default}]",
                setting.help, setting.key, setting.variable
            );
            let arg = Arg::new(setting.key).long(setting.flag).value_name("VALUE").help(help);
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServerFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = own().filter_map(|setting| {
            let text = matches.get_one::<String>(setting.key)?;
            Some((setting.key, text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
