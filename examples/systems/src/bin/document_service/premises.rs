//! What the service finds when it starts: a model, an archive, a database, an annotator.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use stallscope_systems::busy::{self, Export};
use stallscope_systems::pictures::Folder;
use stallscope_systems::server::Server;
use stallscope_systems::{Failure, say};

use crate::documents::{self, SCHEMA};
use crate::key::{self, Hash, KEY};

/// The documents that are there already.
const ARCHIVED: u8 = 40;
const ARCHIVED_BYTES: usize = 3 << 20;
/// Words of theirs that are in the database.
const WORDS: u32 = 45_000;
/// Numbers in the model.
const WEIGHTS: u32 = 1_200_000;
/// How long the annotator thinks.
const THINKS: Duration = Duration::from_millis(50);

/// Everything but the service.
#[derive(Debug)]
pub(crate) struct Premises {
    /// Of the key that clients upload with.
    pub(crate) key: Hash,
    folder: Folder,
    annotator: Server,
    export: Option<Export>,
}

impl Premises {
    pub(crate) fn new() -> Result<Self, Failure> {
        let folder = Folder::new("document_service")?;
        let annotate = |page: Bytes| async move {
            tokio::time::sleep(THINKS).await;
            format!("{} bytes, nothing special", page.len())
        };
        let pages = Router::new().route("/", post(annotate));
        let mut premises = Premises {
            key: key::hash(KEY)?,
            folder,
            annotator: Server::start("annotator", pages)?,
            export: None,
        };
        let weights: Vec<u32> = (0..WEIGHTS)
            .map(|at| at.wrapping_mul(2_654_435_761))
            .collect();
        std::fs::write(premises.model(), serde_json::to_vec(&weights)?)?;
        std::fs::write(premises.template(), documents::template())?;
        for number in 0..ARCHIVED {
            let document = vec![number; ARCHIVED_BYTES];
            std::fs::write(premises.path(&format!("archived-{number}")), document)?;
        }
        premises.fill_database()?;
        premises.export = Some(Export::start(&premises.database())?);
        Ok(premises)
    }

    fn fill_database(&self) -> Result<(), Failure> {
        let mut connection = busy::connect(&self.database())?;
        connection.execute_batch(SCHEMA)?;
        let transaction = connection.transaction()?;
        let mut insert = transaction.prepare("INSERT INTO words VALUES (?1, ?2)")?;
        for number in 0..WORDS {
            let word = format!("word {:08x} of many", number.wrapping_mul(2_654_435_761));
            insert.execute((word, number % 1_000))?;
        }
        drop(insert);
        transaction.execute("CREATE INDEX by_word ON words (word)", [])?;
        Ok(transaction.commit()?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.path("model.json")
    }

    pub(crate) fn template(&self) -> PathBuf {
        self.path("template.json")
    }

    pub(crate) fn archived(&self) -> Vec<PathBuf> {
        (0..ARCHIVED)
            .map(|number| self.path(&format!("archived-{number}")))
            .collect()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("documents.db")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Of a document in the background.
    pub(crate) fn checkpoint(&self, id: i64) -> PathBuf {
        self.path(&documents::checkpoint_name(id))
    }

    pub(crate) fn annotator(&self) -> String {
        self.annotator.url("/")
    }

    /// The job that the service is to end when it ends.
    pub(crate) fn take_export(&mut self) -> Result<Export, Failure> {
        Ok(self.export.take().ok_or("the export has gone")?)
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
