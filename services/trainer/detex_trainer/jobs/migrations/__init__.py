"""How the tables of the job database came to be, step by step; run by `detex_trainer.jobs.schema`."""
