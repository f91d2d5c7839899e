# struct Model;
# impl Model { fn load() -> Self { Model } fn run(&self, input: &[f32]) -> Vec<f32> { input.to_vec() } }
# type Job = (Vec<f32>, tokio::sync::oneshot::Sender<Vec<f32>>);
# async fn handler(jobs: tokio::sync::mpsc::Sender<Job>, input: Vec<f32>) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
// One thread owns the model, loaded at start-up:
// `while let Some((input, reply)) = queue.blocking_recv() { reply.send(model.run(&input)) }`.
let (reply, answer) = tokio::sync::oneshot::channel();
jobs.send((input, reply)).await?;
let output = answer.await?;
# let _ = Model::load().run(&[]);
# Ok(output)
# }
