//! What the service finds when it starts: settings, a database, a model.

use std::path::PathBuf;

use stallscope_systems::busy::Export;
use stallscope_systems::pictures::Folder;
use stallscope_systems::server::Server;
use stallscope_systems::{Failure, say};

use crate::executor::Settings;
use crate::{model, runs};

#[derive(Debug)]
pub(crate) struct Premises {
    folder: Folder,
    model: Server,
    export: Option<Export>,
}

impl Premises {
    pub(crate) fn new() -> Result<Self, Failure> {
        let folder = Folder::new("pipeline_service")?;
        let model = model::serve()?;
        let mut premises = Premises {
            folder,
            model,
            export: None,
        };
        let settings = Settings::new(premises.model.url(""));
        std::fs::write(premises.settings(), serde_json::to_vec(&settings)?)?;
        runs::create(&premises.database())?;
        premises.export = Some(Export::start(&premises.database())?);
        Ok(premises)
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("settings.json")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("runs.db")
    }
}

impl Drop for Premises {
    fn drop(&mut self) {
        if let Some(export) = self.export.take()
            && !matches!(export.stop().join(), Ok(Ok(())))
        {
            say!("the export of the database has failed");
        }
    }
}
