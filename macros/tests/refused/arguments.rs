#[stallscope::test(undr = "10ms")]
async fn is_unknown() {}

#[stallscope::test(under = "10ms", under = "20ms")]
async fn is_given_twice() {}

#[stallscope::test(under)]
async fn has_no_value() {}

#[stallscope::test(under = 10)]
async fn has_no_unit() {}

#[stallscope::test(under = "10 minutes")]
async fn has_another_unit() {}

#[stallscope::test(under = "0ms")]
async fn allows_nothing() {}

#[stallscope::test(flavor = "single_thread")]
async fn has_no_such_flavor() {}

#[stallscope::test(worker_threads = 2)]
async fn has_one_thread() {}

#[stallscope::test(flavor = "multi_thread", worker_threads = 0)]
async fn has_no_thread() {}

#[stallscope::test(flavor = "multi_thread", worker_threads = "2")]
async fn has_threads_in_quotes() {}

#[stallscope::test(flavor = "multi_thread", start_paused = true)]
async fn pauses_many_threads() {}

#[stallscope::test(start_paused)]
async fn pauses_without_a_value() {}

#[stallscope::test(unhandled_panic = "shrug")]
async fn has_no_such_behavior() {}

#[stallscope::test(flavor = "multi_thread", unhandled_panic = "ignore")]
async fn has_the_behavior_of_one_thread() {}

#[stallscope::test(whole_runtime = "yes")]
async fn is_no_switch() {}

#[stallscope::test(allow = "app::load")]
async fn allows_without_a_list() {}

#[stallscope::test(allow = ["app::load()"])]
async fn allows_a_call() {}

#[stallscope::test(allow = [""])]
async fn allows_no_name() {}

#[stallscope::test(allow = [("app::load", 7)])]
async fn allows_for_a_number() {}

#[stallscope::test(allow = [load])]
async fn allows_without_quotes() {}

#[stallscope::test(under = "10ms" no_blocking)]
async fn lacks_a_comma() {}

fn main() {}
