"""Facts of MongoDB that the adapter relies on, case by case: checked on the stand-in, and on a real mongod where a machine has one."""
