"""What the MongoDB adapter relies on, case by case: asked of the stand-in, and of a real mongod where a machine has one."""
