"""Picture files down and up: any kind of picture, one or many, in processes."""
