from airflow.sdk import DAG

import no_such_module_anywhere
