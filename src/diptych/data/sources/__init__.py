"""Where pictures lie: folders, archives, lists, data sets by name; what they are called and how they divide."""
