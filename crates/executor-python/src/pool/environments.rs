//! Environments that jobs wait for.

use std::path::Path;
use std::time::Instant;

use kobza_model::Cause;

use super::{BUILD_AGAIN, Environment, Job, Pool, Progress};

impl Pool {
    pub(super) fn prepare(&mut self, mut job: Job) {
        let file = job.task.file.as_deref().map(Path::new);
        let interpreter = job.task.interpreter.as_deref();
        let wanted = if job.task.venv.is_some() {
            Ok(None)
        } else {
            self.inside.of(job.task.requirements.as_ref(), file, interpreter)
        };
        let requirements = match wanted {
            Ok(Some(requirements)) => requirements,
            Ok(None) => return self.dispatch(job),
            Err(error) => {
                return self.refuse(job, Cause::Template, error.to_string(), String::new());
            }
        };
        let hash = requirements.hash();
        match self.environments.get_mut(&hash) {
            Some(Environment::Built(interpreter)) if interpreter.exists() => {
                job.interpreter.clone_from(interpreter);
                return self.dispatch(job);
            }
            Some(Environment::Building(waiting)) => return waiting.push(job),
            Some(Environment::Failed(error, at)) if at.elapsed() < BUILD_AGAIN => {
                let words = error.to_string();
                return self.refuse(job, Cause::Code, words, String::new());
            }
            _ => {}
        }
        if let Some(interpreter) = self.builder.existing(&requirements) {
            job.interpreter.clone_from(&interpreter);
            self.environments.insert(hash, Environment::Built(interpreter));
            return self.dispatch(job);
        }
        let (builder, sender, wake) =
            (self.builder.clone(), self.progress.0.clone(), self.wake.clone());
        let name = hash.clone();
        let thread = std::thread::Builder::new().name("kobza-uv".into()).spawn(move || {
            let tell = |progress| {
                // The pool has gone: nobody is left to tell.
                let _ = sender.send(progress);
                let _ = wake.write(1);
            };
            let result = builder.build(&requirements, &mut |line| {
                tell(Progress::Line(name.clone(), line.to_owned()));
            });
            tell(Progress::Done(name, result));
        });
        match thread {
            Ok(_) => {
                self.environments.insert(hash, Environment::Building(vec![job]));
            }
            Err(error) => self.refuse(
                job,
                Cause::Infrastructure,
                format!("no thread to build the environment: {error}"),
                String::new(),
            ),
        }
    }

    pub(super) fn take_progress(&mut self) {
        let _ = self.wake.read();
        while let Ok(progress) = self.progress.1.try_recv() {
            match progress {
                Progress::Line(hash, line) => {
                    let Some(Environment::Building(jobs)) = self.environments.get(&hash) else {
                        continue;
                    };
                    for job in jobs {
                        // Only for the eye: a full pipe loses a line.
                        let text = format!("environment: {line}\n");
                        let _ = nix::unistd::write(&job.body.stderr, text.as_bytes());
                    }
                }
                Progress::Done(hash, result) => {
                    let state = match &result {
                        Ok(interpreter) => Environment::Built(interpreter.clone()),
                        Err(error) => Environment::Failed(error.clone(), Instant::now()),
                    };
                    let Some(Environment::Building(jobs)) = self.environments.insert(hash, state)
                    else {
                        continue;
                    };
                    for mut job in jobs {
                        match &result {
                            Ok(interpreter) => {
                                job.interpreter.clone_from(interpreter);
                                self.dispatch(job);
                            }
                            Err(error) => {
                                self.refuse(job, Cause::Code, error.to_string(), String::new());
                            }
                        }
                    }
                }
            }
        }
    }
}
